"""The methods of the domain `intent`."""

from __future__ import annotations

from saccade.catalog.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="intentonomy",
        name="Intentonomy",
        title="Intentonomy: a Dataset and Study towards Human Intent Understanding",
        arxiv="2011.05558",
        domain="intent",
        summary=(
            "Recognises why somebody posted a picture, with classes that look at the objects or at the scene, as "
            "suits them."
        ),
        repository="KMnP/intentonomy",
        licence="CC BY-NC 4.0",
    ),
)
