"""The methods of the domain `faces`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="behavior-biometrics",
        name="Behavior Biometrics",
        title="Detecting Deep-Fake Videos from Appearance and Behavior",
        arxiv="2004.14491",
        domain="faces",
        summary=(
            "Finds face swaps of enrolled, consenting people: the clip looks like one person and moves like another."
        ),
    ),
    Method(
        slug="dal-gan",
        name="DAL-GAN",
        title="Heterogeneous Face Frontalization via Domain Agnostic Learning",
        arxiv="2107.08311",
        domain="faces",
        summary=(
            "Turns a thermal face seen from the side into a visible one seen from the front, so that it can be "
            "compared with a gallery."
        ),
    ),
    Method(
        slug="micromotion",
        name="Micromotion",
        title=(
            "Grasping the Arrow of Time from the Singularity: Decoding Micromotion in Low-dimensional Latent "
            "Spaces from StyleGAN"
        ),
        arxiv="2204.12696",
        domain="faces",
        summary=(
            "Finds the one latent direction of a small face motion, such as a smile, and applies it to other "
            "synthetic faces."
        ),
        repository="wuqiuche/micromotion-styleGAN",
        licence="MIT",
    ),
    Method(
        slug="physical-fas",
        name="Physical-cue face anti-spoofing",
        title="Uncertainty-Aware Physically-Guided Proxy Tasks for Unseen Domain Face Anti-spoofing",
        arxiv="2011.14054",
        domain="faces",
        summary=(
            "Tells a live face from a print, a screen or a mask by depth, reflection and material, and says how "
            "sure it is."
        ),
    ),
    Method(
        slug="pros",
        name="ProS",
        title="ProS: Facial Omni-Representation Learning via Prototype-based Self-Distillation",
        arxiv="2311.01929",
        domain="faces",
        summary=(
            "Learns one face backbone from unlabelled pictures that serves attributes, expressions, landmarks and "
            "retrieval."
        ),
        repository="protagolabs/Netmind-FaceAnalysis",
        licence=NO_LICENCE,
    ),
)
