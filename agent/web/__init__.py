"""The page and the API of a running daemon."""
