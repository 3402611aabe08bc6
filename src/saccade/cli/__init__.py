"""The command line: parses, calls, prints. Nothing here imports torch before a command needs it."""

from saccade.cli.main import main

__all__ = ["main"]
