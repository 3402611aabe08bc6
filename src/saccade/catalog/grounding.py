"""The methods of the domain `grounding`."""

from __future__ import annotations

from saccade.catalog.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="dscnet",
        name="DSCNet",
        title="Unsupervised Temporal Video Grounding with Deep Semantic Clustering",
        arxiv="2201.05307",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes in a video, trained without knowing which sentence "
            "belongs to which video."
        ),
    ),
    Method(
        slug="ecrl",
        name="ECRL",
        title="Transform-Equivariant Consistency Learning for Temporal Sentence Grounding",
        arxiv="2305.04123",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes, trained so that a cut or shifted video gives a cut or "
            "shifted answer."
        ),
    ),
    Method(
        slug="mgsl-net",
        name="MGSL-Net",
        title="Memory-Guided Semantic Learning Network for Temporal Sentence Grounding",
        arxiv="2201.00454",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes, with a memory that helps with words and scenes seen but "
            "a few times."
        ),
    ),
    Method(
        slug="mhst",
        name="MHST",
        title="Hypotheses Tree Building for One-Shot Temporal Sentence Localization",
        arxiv="2301.01871",
        domain="grounding",
        summary="Finds the moment that a sentence describes, trained with a single marked frame for each sentence.",
    ),
    Method(
        slug="ssrn",
        name="SSRN",
        title="Rethinking the Video Sampling and Reasoning Strategies for Temporal Sentence Grounding",
        arxiv="2301.00514",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes more exactly, by reading a long video at several offsets "
            "at once."
        ),
    ),
)
