"""The methods of the domain `graph`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="correct-and-smooth",
        name="Correct and Smooth",
        title="Combining Label Propagation and Simple Models Out-performs Graph Neural Networks",
        arxiv="2010.13993",
        domain="graph",
        summary=(
            "Improves any classifier whose samples are nodes of a graph: it spreads the known errors, then the "
            "predictions, along the edges, in seconds and without training."
        ),
        repository="CUAI/CorrectAndSmooth",
        licence=NO_LICENCE,
        parts=(
            "saccade.graph:CorrectAndSmooth",
            "saccade.graph:LabelPropagation",
            "saccade.graph:propagate",
            "saccade.graph:normalized_adjacency",
            "saccade.graph:tune",
            "saccade.graph:spectral_features",
            "saccade.graph:diffusion_features",
        ),
        claim="saccade.graph.claims:CORRECT_AND_SMOOTH",
        recipes=(
            "graph/correct-and-smooth-citations",
            "graph/correct-and-smooth-cora",
            "graph/correct-and-smooth-citeseer",
        ),
        checkpoints="none: base predictions are made anew",
    ),
)
