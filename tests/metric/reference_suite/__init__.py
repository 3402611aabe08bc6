"""The reference library's own tests, pointed at ours through a package of its name."""
