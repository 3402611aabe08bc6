"""Claims of this domain, one module a method."""
