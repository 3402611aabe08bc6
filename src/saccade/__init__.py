"""Saccade: published vision methods as parts to import, recipes to run and claims to re-check."""

__version__ = "0.1.0"
