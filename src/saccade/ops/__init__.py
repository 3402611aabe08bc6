"""Pure functions on tensors; torch alone."""
