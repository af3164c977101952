"""Things to run Watchkeeper against: a model server, its traffic, and a prediction log for servers that keep none."""
