"""The methods of the domain `medical`."""

from __future__ import annotations

from saccade.catalog.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="lns",
        name="DeepStationing",
        title=(
            "DeepStationing: Thoracic Lymph Node Station Parsing in CT Scans using Anatomical Context Encoding "
            "and Key Organ Auto-Search"
        ),
        arxiv="2109.09271",
        domain="medical",
        summary=(
            "Outlines lymph node stations in chest CT, guided by the organs around them, and finds which organs "
            "are needed (research only)."
        ),
    ),
)
