"""The same classifier behind MLServer, a model server that nobody here wrote."""
