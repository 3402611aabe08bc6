"""Ours, under the reference library's names; for its tests alone."""

__version__ = "2.9.0"
