"""The claims of the adaptation domain, one file a method."""
