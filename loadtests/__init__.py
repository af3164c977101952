"""Checks that make their own traffic: one module a subject; discovered, never listed by hand."""
