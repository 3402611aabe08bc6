"""The list of methods: data alone, so that `saccade list` answers at once. Importing it imports no torch."""

from __future__ import annotations

from importlib import import_module

from saccade.catalog.method import Method
from saccade.spelling import near_it

__all__ = ["DOMAINS", "METHODS", "Method", "find"]

DOMAINS: dict[str, str] = {
    "action": "recognise what happens in a video",
    "multimodal": "learn from picture, sound and text together",
    "grounding": "find the moment of a video that a sentence describes",
    "metric": "learn embeddings to search and compare with",
    "adaptation": "carry a classifier over to data that look different",
    "restoration": "repair images and videos",
    "weak": "learn boxes and masks from little annotation",
    "faces": "analyse, protect and edit faces",
    "forensics": "tell generated media from real ones",
    "explain": "show what a network looks at",
    "efficiency": "make networks small and fast, and measure it",
    "graph": "classify things that are connected",
    "flows": "model densities on curved spaces",
    "medical": "outline organs and structures in scans",
    "crowd": "count people, and audit the counters",
    "intent": "recognise why a picture was posted",
}

METHODS: tuple[Method, ...] = tuple(
    sorted(
        (method for domain in DOMAINS for method in import_module(f"{__name__}.{domain}").METHODS),
        key=lambda method: method.slug,
    )
)
"""All of them, by slug."""


def find(slug: str) -> Method:
    """The method of that slug.

    Args:
        slug: As in `saccade list`.

    Returns:
        Its entry.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    for method in METHODS:
        if method.slug == slug:
            return method
    hint = near_it(slug, [method.slug for method in METHODS], "`saccade list` prints them all")
    raise ValueError(f"no method {slug!r}; {hint}")
