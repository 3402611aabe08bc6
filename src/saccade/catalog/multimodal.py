"""The methods of the domain `multimodal`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="gdt",
        name="GDT",
        title="On Compositions of Transformations in Contrastive Self-Supervised Learning",
        arxiv="2003.04298",
        domain="multimodal",
        summary=(
            "Learns video and sound features from unlabelled clips, with a choice of what they should ignore and "
            "what they should tell apart."
        ),
        repository="facebookresearch/GDT",
        licence="CC BY-NC 4.0",
    ),
    Method(
        slug="gradient-harmonization",
        name="Gradient Harmonization",
        title="Scaling Multimodal Pre-Training via Cross-Modality Gradient Harmonization",
        arxiv="2211.02077",
        domain="multimodal",
        summary=(
            "Keeps the losses of video, sound and text from pulling a shared network apart, and drops samples "
            "whose parts do not fit."
        ),
    ),
    Method(
        slug="mmp",
        name="MMP",
        title="Multilingual Multimodal Pre-training for Zero-Shot Cross-Lingual Transfer of Vision-Language Models",
        arxiv="2103.08849",
        domain="multimodal",
        summary="Searches videos in nine languages with English annotation alone.",
        repository="berniebear/Multi-HT100M",
        licence=NO_LICENCE,
    ),
    Method(
        slug="selavi",
        name="SeLaVi",
        title="Labelling unlabelled videos from scratch with multi-modal self-supervision",
        arxiv="2006.13662",
        domain="multimodal",
        summary="Sorts an unlabelled video archive into groups by looking and listening.",
        repository="facebookresearch/selavi",
        licence="CC BY-NC 4.0",
    ),
    Method(
        slug="stica",
        name="STiCA",
        title="Space-Time Crop & Attend: Improving Cross-modal Video Representation Learning",
        arxiv="2103.10211",
        domain="multimodal",
        summary="Pre-trains video networks on few GPUs: crops are taken from features instead of from frames.",
        repository="facebookresearch/GDT",
        licence="CC BY-NC 4.0",
    ),
    Method(
        slug="support-set",
        name="Support-set bottlenecks",
        title="Support-set bottlenecks for video-text representation learning",
        arxiv="2010.02824",
        domain="multimodal",
        summary="Learns to search videos by text without pushing apart clips that mean the same.",
    ),
)
