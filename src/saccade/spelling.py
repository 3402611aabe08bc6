"""What a person may have meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near_it(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of an error message: the names closest to one that is not known.

    Args:
        name: As it came.
        known: All names.
        otherwise: What to say where none is close.

    Returns:
        Such as "near it: resnet18, resnet34", or `otherwise`.

    Example:
        >>> near_it("resnet81", ["resnet18", "vit_tiny"])
        'near it: resnet18'
    """
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    return f"near it: {', '.join(near)}" if near else otherwise
