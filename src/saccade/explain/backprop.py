"""Saliency maps by back-propagation: one driver, and the methods that differ in backward rule and reading.

The driver switches to eval mode without parameter gradients, watches the saliency layer (or the input), runs the
model under the method's rule, sends a gradient back from the output, and reads activation and gradient. All methods
share their arguments; modes, flags and hooks are as before afterwards, also after an error.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.explain.backward_rules import ReluRule
from saccade.explain.maps import Resize, class_activation_map, finish
from saccade.explain.perturbation import _what
from saccade.explain.targets import Target, check_output, output_gradient
from saccade.surgery import Probe, frozen

Read = Callable[[Tensor, Tensor], Tensor]


def saliency(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    rule: AbstractContextManager[object] | None = None,
    read: Read,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """The driver; the methods below are it with a rule and a reading.

    Args:
        model: Gives logits (n, k) or (n, k, h, w).
        image: Images.
        target: One class for all, one for each, or an output gradient of the output's shape.
        layer: The saliency layer, whose output is read; `None`: the model's input.
        rule: Context for the forward pass, which binds backward rules.
        read: From activation and gradient to maps (n, 1, h, w).
        resize: `True`: to the image's size; or (height, width).
        smooth: Gaussian smoothing, sigma as a share of the map's longer side, replicate padding.
        pointing: Start from the pointing gradient instead of the one-hot one, see `output_gradient`.

    Returns:
        Maps, detached.

    Raises:
        TypeError: The target is no class index.
        ValueError: Not a float image batch, no such layer, target out of range, an output or layer of another form.
    """
    check_images(image)
    name, where = ("", "input") if layer is None else (layer, "output")
    with frozen(model), torch.enable_grad(), Probe(model, name, where=where) as probe:  # type: ignore[arg-type]
        with rule if rule is not None else nullcontext():
            output = check_output(model(image))
        activation = probe[name].activation
        start = output_gradient(output, target, pointing=pointing)
        gradient = gradient_at(output, activation, start, layer)
    return finished(read(activation.detach(), gradient), image, resize, smooth)


def gradient_at(
    output: Tensor, activation: Tensor, start: Tensor, layer: str | None, *, retain: bool = False
) -> Tensor:
    """The gradient that arrives at an activation.

    Args:
        output: Of the model.
        activation: Of the saliency layer.
        start: Gradient at the output.
        layer: Its name, for the message.
        retain: Keep the graph for another pass.

    Returns:
        The gradient; zeros where none arrives.

    Raises:
        ValueError: The output does not depend on that layer in a differentiable way.
    """
    if not output.requires_grad:
        raise ValueError(f"no gradient reaches {'the input' if layer is None else repr(layer)} from the output")
    (gradient,) = torch.autograd.grad(
        output, activation, start, retain_graph=retain, allow_unused=True, materialize_grads=True
    )
    return gradient


def finished(maps: Tensor, image: Tensor, resize: Resize, smooth: float) -> Tensor:
    """Resized and smoothed maps, sigma relative to the longer side of the result."""
    sized = finish(maps, image.shape[-2:], resize, 0.0)
    return finish(sized, image.shape[-2:], False, smooth * max(sized.shape[-2:])).detach()


def check_images(image: object) -> None:
    """Complain about what is no batch of float images.

    Args:
        image: Should be (n, c, h, w).

    Raises:
        ValueError: It is not; the message says what came.
    """
    if not isinstance(image, Tensor) or image.ndim != 4 or not image.is_floating_point():
        raise ValueError(f"wanted float images (n, c, h, w), got {_what(image)}")


def _largest(activation: Tensor, gradient: Tensor) -> Tensor:
    if gradient.ndim != 4:
        raise ValueError(f"the saliency layer gives {tuple(gradient.shape)}: wanted (n, c, h, w)")
    return gradient.abs().amax(1, keepdim=True)


def gradient(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """Gradient saliency: the largest absolute derivative over channels.

    Args:
        model: Gives logits.
        image: Images.
        target: Class.
        layer: Saliency layer; `None`: the input.
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        pointing: Start from the pointing gradient.

    Returns:
        Maps, not negative.

    Raises:
        TypeError: As `saliency`.
        ValueError: As `saliency`.

    Source:
        arXiv:1312.6034.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> gradient(model, torch.rand(2, 3, 8, 8), [1, 3]).shape
        torch.Size([2, 1, 8, 8])
    """
    return saliency(model, image, target, layer=layer, read=_largest, resize=resize, smooth=smooth, pointing=pointing)


def deconvnet(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """DeConvNet: ReLUs pass positive gradients, whatever their input was.

    Functional, in-place and module ReLUs are reached alike.

    Args:
        model: Gives logits.
        image: Images.
        target: Class.
        layer: Saliency layer; `None`: the input.
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        pointing: Start from the pointing gradient.

    Returns:
        Maps, not negative.

    Raises:
        TypeError: As `saliency`.
        ValueError: As `saliency`.

    Source:
        arXiv:1311.2901.
    """
    return saliency(
        model, image, target, layer=layer, rule=ReluRule(guided=False), read=_largest, resize=resize, smooth=smooth,
        pointing=pointing,
    )  # fmt: skip


def guided_backprop(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """Guided backprop: ReLUs pass positive gradients where their input was not negative.

    Functional, in-place and module ReLUs are reached alike.

    Args:
        model: Gives logits.
        image: Images.
        target: Class.
        layer: Saliency layer; `None`: the input.
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        pointing: Start from the pointing gradient.

    Returns:
        Maps, not negative.

    Raises:
        TypeError: As `saliency`.
        ValueError: As `saliency`.

    Source:
        arXiv:1412.6806.
    """
    return saliency(
        model, image, target, layer=layer, rule=ReluRule(guided=True), read=_largest, resize=resize, smooth=smooth,
        pointing=pointing,
    )  # fmt: skip


def grad_cam(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """Grad-CAM: the activation weighted by its mean gradient, positive part.

    Args:
        model: Gives logits.
        image: Images.
        target: Class.
        layer: An inner layer with output (n, c, h, w), usually the last one; needed.
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        pointing: Start from the pointing gradient.

    Returns:
        Maps, not negative.

    Raises:
        TypeError: As `saliency`.
        ValueError: As `saliency`; no layer is named, or its output is not 4-D.

    Source:
        arXiv:1610.02391.
    """
    if layer is None:
        raise ValueError("Grad-CAM reads an inner layer: name one, such as the last convolution's")

    def read(activation: Tensor, gradient: Tensor) -> Tensor:
        if activation.ndim != 4:
            raise ValueError(
                f"Grad-CAM needs a layer with output (n, c, h, w); {layer!r} gives {tuple(activation.shape)}"
            )
        return class_activation_map(activation, gradient, reduce="gap_gradient", relu=True)

    return saliency(model, image, target, layer=layer, read=read, resize=resize, smooth=smooth, pointing=pointing)


def linear_approx(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    pointing: bool = False,
) -> Float[Tensor, "n 1 H W"]:
    """Linear approximation: activation times gradient, summed over channels; signed.

    Args:
        model: Gives logits.
        image: Images.
        target: Class.
        layer: Saliency layer; `None`: the input.
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        pointing: Start from the pointing gradient.

    Returns:
        Maps.

    Raises:
        TypeError: As `saliency`.
        ValueError: As `saliency`.
    """

    def read(activation: Tensor, gradient: Tensor) -> Tensor:
        if activation.ndim != 4:
            raise ValueError(f"the saliency layer gives {tuple(activation.shape)}: wanted (n, c, h, w)")
        return class_activation_map(activation, gradient, reduce="elementwise")

    return saliency(model, image, target, layer=layer, read=read, resize=resize, smooth=smooth, pointing=pointing)
