"""Where real data lies. Nothing is downloaded unasked."""

from __future__ import annotations

import os
from pathlib import Path


def default_root() -> Path:
    """The data root: `SACCADE_DATA`, or `saccade` in the user's cache folder."""
    named = os.environ.get("SACCADE_DATA")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "saccade"


def require(path: Path, what: str, where: str) -> Path:
    """A file or folder of a data set.

    Args:
        path: Where it should be.
        what: What it is, for the message.
        where: Where it is to be had.

    Returns:
        The path.

    Raises:
        FileNotFoundError: It is not there; the message says what is missing and where it is to be had.
    """
    if not path.exists():
        raise FileNotFoundError(f"{what} is not at {path}; it is to be had from {where}")
    return path
