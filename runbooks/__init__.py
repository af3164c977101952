"""What Watchkeeper does about it: one module a subject; discovered, never listed by hand."""
