"""What the tests touch besides the classes."""
