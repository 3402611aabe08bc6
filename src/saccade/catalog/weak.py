"""The methods of the domain `weak`."""

from __future__ import annotations

from saccade.catalog.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="affinitynet",
        name="AffinityNet",
        title=(
            "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised Semantic "
            "Segmentation"
        ),
        arxiv="1803.10464",
        domain="weak",
        summary=(
            "Turns image-level tags into pixel-level masks: it learns which neighbouring pixels belong together "
            "and lets class scores walk along them."
        ),
        repository="jiwoon-ahn/psa",
        licence="MIT",
    ),
    Method(
        slug="irnet",
        name="IRNet",
        title="Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
        arxiv="1904.05044",
        domain="weak",
        summary=(
            "Turns image-level tags into masks of single objects by learning where classes end and where each "
            "object's centre is."
        ),
        repository="jiwoon-ahn/irn",
        licence="MIT",
    ),
    Method(
        slug="ubbr",
        name="UBBR",
        title="Universal Bounding Box Regression and Its Applications",
        arxiv="1904.06805",
        domain="weak",
        summary="Moves any rough box to the nearest object, also of classes that it never saw.",
    ),
    Method(
        slug="web-video-seg",
        name="Web-video segmentation",
        title="Weakly Supervised Semantic Segmentation using Web-Crawled Videos",
        arxiv="1701.00352",
        domain="weak",
        summary="Learns to segment images from their tags and a folder of short clips found by the class names.",
    ),
)
