"""A classifier of handwritten digits, from its training to the server that forgets how to prepare an image."""
