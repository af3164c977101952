"""What Watchkeeper looks at: one module a subject; discovered, never listed by hand."""
