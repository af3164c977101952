"""The same classifier behind TorchServe, a model server that nobody here wrote."""
