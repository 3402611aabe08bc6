"""The methods of the domain `restoration`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="david",
        name="DAVID",
        title="DAVID: Dual-Attentional Video Deblurring",
        arxiv="1912.03445",
        domain="restoration",
        summary=(
            "Sharpens shaky video whose blur changes over time, mixing several networks by attention on how much "
            "blur there is."
        ),
    ),
    Method(
        slug="deblurgan-v2",
        name="DeblurGAN-v2",
        title="DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better",
        arxiv="1908.03826",
        domain="restoration",
        summary=(
            "Sharpens a single motion-blurred photograph; its backbone is exchangeable, from large and good to "
            "small and fast."
        ),
        repository="VITA-Group/DeblurGANv2",
        licence="BSD-3-Clause",
    ),
    Method(
        slug="jpeg",
        name="JPEG defects",
        title="Analyzing and Mitigating JPEG Compression Defects in Deep Learning",
        arxiv="2011.08932",
        domain="restoration",
        summary=(
            "Measures how much JPEG compression costs a recogniser and wins it back with a correction network "
            "trained for the task."
        ),
        repository="Queuecumber/torchjpeg",
        licence="MIT",
    ),
    Method(
        slug="u-said",
        name="U-SAID",
        title="Segmentation-Aware Image Denoising without Knowing True Segmentation",
        arxiv="1905.08965",
        domain="restoration",
        summary="Denoises images so that regions and edges survive, without any segmentation labels.",
        repository="VITA-Group/USAID",
        licence=NO_LICENCE,
    ),
    Method(
        slug="ug2",
        name="UG^2",
        title="Bridging the Gap Between Computational Photography and Visual Recognition",
        arxiv="1901.09482",
        domain="restoration",
        summary="Scores an image restorer twice: does it look better to people, and do recognisers see more?",
        repository="rosauravidal/UG2_classification_eval",
        licence=NO_LICENCE,
    ),
    Method(
        slug="urie",
        name="URIE",
        title="URIE: Universal Image Enhancement for Visual Recognition in the Wild",
        arxiv="2007.08979",
        domain="restoration",
        summary="Makes bad images recognisable for a fixed recogniser by a small network in front of it.",
        repository="taeyoungson/urie",
        licence=NO_LICENCE,
    ),
)
