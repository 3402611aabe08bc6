"""Excitation backprop and its contrastive form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.explain.backprop import check_images, finished, gradient_at
from saccade.explain.backward_rules import ExcitationRule
from saccade.explain.maps import Resize
from saccade.explain.targets import Target, check_output, output_gradient
from saccade.surgery import Probe, find_layers, frozen, get_module

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def excitation_backprop(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """Excitation backprop: probability of winning passed down from the target, summed over channels.

    Args:
        model: Gives logits; of convolutions, linear layers, ReLUs, pooling, batch norm, sums.
        image: Images.
        target: Class.
        layer: Saliency layer, better one with an output that is not negative (behind a ReLU or pool).
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        pointing: Start from the pointing gradient.

    Returns:
        Maps.

    Raises:
        TypeError: As `saliency`.
        ValueError: As `saliency`.

    Source:
        arXiv:1608.00507, section 3.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> maps = excitation_backprop(model, torch.rand(1, 3, 8, 8), 1, layer="1")
        >>> maps.shape
        torch.Size([1, 1, 6, 6])
    """
    return _excitation(model, image, target, layer, None, None, resize, smooth, pointing)


def contrastive_excitation_backprop(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    contrast_layer: str,
    classifier_layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """Contrastive excitation backprop: what excites the target more than its opposite, positive part.

    The target's excitation at the contrast layer, minus that of the same head with its weight negated, is passed
    down. Both passes share one forward pass.

    Args:
        model: Gives logits.
        image: Images.
        target: Class.
        layer: Saliency layer, at or below the contrast layer; `None`: the input.
        contrast_layer: Where the two excitations are subtracted (VGG: the layer before the last; ResNet: avgpool).
        classifier_layer: The layer whose weight is negated; `None`: the last convolution or linear layer.
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        pointing: Start from the pointing gradient.

    Returns:
        Maps, not negative.

    Raises:
        TypeError: As `saliency`.
        ValueError: As `saliency`; or the classifier layer has no weight.

    Source:
        arXiv:1608.00507, section 3.3.
    """
    return _excitation(model, image, target, layer, contrast_layer, classifier_layer, resize, smooth, pointing).relu()


def _excitation(
    model: nn.Module,
    image: Tensor,
    target: Target,
    layer: str | None,
    contrast: str | None,
    classifier: str | None,
    resize: Resize,
    smooth: float,
    pointing: bool,
) -> Tensor:
    check_images(image)
    name, where = ("", "input") if layer is None else (layer, "output")
    rule = ExcitationRule()
    with frozen(model), torch.enable_grad(), Probe(model, name, where=where) as probe:  # type: ignore[arg-type]
        if contrast is None:
            with rule:
                output = check_output(model(image))
            activation = probe[name].activation
            start = output_gradient(output, target, pointing=pointing)
            arrived = gradient_at(output, activation, start, layer)
        else:
            weight = _head_weight(model, classifier)
            with Probe(model, contrast) as middle, rule:
                output = check_output(model(image))
            activation, between = probe[name].activation, middle[contrast].activation
            start = output_gradient(output, target, pointing=pointing)
            rule.negated = weight
            opposite = gradient_at(output, between, start, contrast, retain=True)
            rule.negated = None
            between.register_hook(lambda arriving: arriving - opposite)
            arrived = gradient_at(output, activation, start, layer)
    if arrived.ndim != 4:
        raise ValueError(f"the saliency layer gives {tuple(arrived.shape)}: wanted (n, c, h, w)")
    maps = arrived.sum(1, keepdim=True)
    return finished(maps.relu() if contrast is not None else maps, image, resize, smooth)


def _head_weight(model: nn.Module, name: str | None) -> Tensor:
    if name is None:
        layers = find_layers(model, WEIGHTED)
        if not layers:
            raise ValueError(f"{type(model).__name__} has no convolution or linear layer to contrast")
        name = list(layers)[-1]
    weight = getattr(get_module(model, name), "weight", None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"the classifier layer {name!r} has no weight")
    return weight
