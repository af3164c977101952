"""Adapters: one file for each kind of target: one module a subject; discovered, never listed by hand."""
