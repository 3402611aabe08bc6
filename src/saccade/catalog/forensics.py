"""The methods of the domain `forensics`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="patch-forensics",
        name="Patch Forensics",
        title="What makes fake images detectable? Understanding properties that generalize",
        arxiv="2008.10588",
        domain="forensics",
        summary="Tells generated from real images patch by patch, and shows where the picture gives itself away.",
        repository="chail/patch-forensics",
        licence=NO_LICENCE,
    ),
)
