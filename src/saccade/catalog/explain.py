"""The methods of the domain `explain`."""

from __future__ import annotations

from saccade.catalog.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="extremal-perturbation",
        name="Extremal Perturbation",
        title="Understanding Deep Networks via Extremal Perturbations and Smooth Masks",
        arxiv="1910.08485",
        domain="explain",
        summary=(
            "Shows which part of an image a network looks at: the smooth mask of a given area that keeps its "
            "answer strongest; with eight further attribution methods."
        ),
        repository="facebookresearch/TorchRay",
        licence="CC BY-NC 4.0",
        parts=(
            "saccade.explain:ExtremalPerturbation",
            "saccade.explain:SmoothMask",
            "saccade.explain:Perturbation",
            "saccade.explain:channel_attribution",
            "saccade.explain:feature_inversion",
            "saccade.explain:gradient",
            "saccade.explain:guided_backprop",
            "saccade.explain:deconvnet",
            "saccade.explain:grad_cam",
            "saccade.explain:linear_approx",
            "saccade.explain:excitation_backprop",
            "saccade.explain:contrastive_excitation_backprop",
            "saccade.explain:rise",
            "saccade.explain:PointingGame",
        ),
        claim="saccade.explain.claims:EXTREMAL_PERTURBATION",
        recipes=(
            "explain/pointing-voc07-vgg16",
            "explain/pointing-voc07-resnet50",
            "explain/pointing-coco14-vgg16",
            "explain/pointing-coco14-resnet50",
        ),
        converter="saccade.explain.checkpoints:convert",
        checkpoints="VGG16 and ResNet-50 classifiers for VOC 2007 and COCO 2014, converted from Caffe, as .pth.tar",
    ),
)
