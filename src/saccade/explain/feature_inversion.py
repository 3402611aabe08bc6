"""Feature inversion: an image that gives a layer the activation that a channel mask kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.explain.perturbation import _what
from saccade.surgery import Probe, frozen


def normalised_error(
    target: Float[Tensor, "n c h w"], candidate: Float[Tensor, "n c h w"], channel_mask: Float[Tensor, " c"]
) -> Float[Tensor, ""]:
    """||m target - candidate||² / ||m target||²: the target is masked, the candidate is not.

    Args:
        target: Activation of the image.
        candidate: Activation of the image that is sought.
        channel_mask: Share kept of each channel.

    Returns:
        The error; 1 for a candidate of zeros.

    Raises:
        ValueError: Shapes that do not fit, or a mask that leaves nothing.

    Example:
        >>> normalised_error(torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 0.0]))
        tensor(1.)
    """
    if target.shape != candidate.shape or channel_mask.shape != target.shape[1:2]:
        raise ValueError(
            f"target {tuple(target.shape)}, candidate {tuple(candidate.shape)} and mask {tuple(channel_mask.shape)} "
            "do not fit"
        )
    kept = target * channel_mask.view(1, -1, *([1] * (target.ndim - 2)))
    scale = kept.square().sum()
    if not bool(scale > 0):
        raise ValueError("the masked activation is zero: there is nothing to invert")
    return (kept - candidate).square().sum() / scale


def total_variation(image: Float[Tensor, "n c h w"], beta: float = 2.0) -> Float[Tensor, ""]:
    """Σ (dx² + dy²)^(beta / 2), forward differences on the (h - 1) x (w - 1) grid.

    Args:
        image: Images.
        beta: Exponent.

    Returns:
        The sum over everything.

    Source:
        arXiv:1412.0035.

    Example:
        >>> total_variation(torch.eye(2)[None, None])
        tensor(2.)
    """
    dx = image[..., :-1, 1:] - image[..., :-1, :-1]
    dy = image[..., 1:, :-1] - image[..., :-1, :-1]
    squared = dx.square() + dy.square()
    return squared.sum() if beta == 2 else squared.pow(beta / 2).sum()


class HourGlass(nn.Module):
    """The untrained network of a deep image prior: down, up, thin skips; its structure alone prefers natural images.

    Args:
        channels: Channels of each scale, from fine to coarse.
        skip: Channels of the skip connections.
        inputs: Channels of the input noise.
        outputs: Channels of the image.

    Source:
        arXiv:1711.10925.
    """

    def __init__(
        self, channels: Sequence[int] = (16, 32, 64, 128, 128), skip: int = 4, inputs: int = 32, outputs: int = 3
    ) -> None:
        super().__init__()
        widths = [inputs, *channels]
        self.down = nn.ModuleList(
            nn.Sequential(_conv(a, b, 3, stride=2), _conv(b, b, 3)) for a, b in zip(widths, channels, strict=False)
        )
        self.skip = nn.ModuleList(_conv(a, skip, 1) for a in widths[:-1])
        ups = [*channels[1:], channels[-1]]
        self.up = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(above + skip), _conv(above + skip, b, 3), _conv(b, b, 1))
            for above, b in zip(ups, channels, strict=True)
        )
        self.out = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, noise: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h w"]:
        """From noise to an image in (0, 1)."""
        skips = []
        x = noise
        for down, skip in zip(self.down, self.skip, strict=True):
            skips.append(skip(x))
            x = down(x)
        for up, side in zip(reversed(self.up), reversed(skips), strict=True):
            x = F.interpolate(x, size=side.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, side], dim=1))
        return self.out(x).sigmoid()


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect" if kernel > 1 else "zeros"
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


@dataclass(frozen=True)
class Inversion:
    """What feature inversion found.

    Args:
        image: In [0, 1] for the deep image prior; in the model's input range for the pixels.
        errors: Normalised error at every step.
    """

    image: Float[Tensor, "1 c h w"]
    errors: Float[Tensor, " steps"]


def feature_inversion(
    model: nn.Module,
    layer: str,
    image: Float[Tensor, "1 c h w"],
    channel_mask: Float[Tensor, " k"] | None = None,
    *,
    prior: Literal["dip", "pixel"] = "dip",
    steps: int = 3000,
    lr: float = 0.01,
    scales: int = 5,
    input_noise: float = 1 / 30,
    normalise: Callable[[Tensor], Tensor] | None = None,
    tv_weight: float = 1e-4,
    tv_beta: float = 2.0,
    alpha_weight: float = 1e-6,
    alpha: float = 6.0,
    jitter: int = 4,
    seed: int = 0,
) -> Inversion:
    """Find an image whose activation at a layer is what a channel mask keeps of the given image's activation.

    Args:
        model: Any model; run in eval mode.
        layer: Name of the layer; its output has the channels in dimension 1.
        image: As the model wants it.
        channel_mask: Share kept of each channel; `None`: all.
        prior: `dip`, an untrained hour-glass network makes the image from fixed noise; `pixel`, the pixels themselves
            with total variation and |x|^alpha, under random shifts.
        steps: Steps of Adam.
        lr: Its step size.
        scales: Scales of the hour-glass, 1 to 5.
        input_noise: Standard deviation of the noise that each step adds to the hour-glass's input.
        normalise: From an image in [0, 1] to what the model wants (deep image prior).
        tv_weight: Weight of the total variation (pixels).
        tv_beta: Its exponent.
        alpha_weight: Weight of Σ |x|^alpha (pixels).
        alpha: Its exponent.
        jitter: Largest random shift in pixels (pixels).
        seed: Of everything random; the global generator is as before afterwards.

    Returns:
        The image and the errors.

    Raises:
        ValueError: Not one float image, no such layer, an unknown prior, a mask of another length.

    Source:
        arXiv:1910.08485, section 5; arXiv:1711.10925; arXiv:1412.0035.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> found = feature_inversion(model, "1", torch.rand(1, 3, 16, 16), steps=2, scales=2)
        >>> found.image.shape, len(found.errors)
        (torch.Size([1, 3, 16, 16]), 2)
    """
    if not isinstance(image, Tensor) or image.ndim != 4 or len(image) != 1 or not image.is_floating_point():
        raise ValueError(f"wanted one float image (1, c, h, w), got {_what(image)}")
    if prior not in ("dip", "pixel"):
        raise ValueError(f"prior {prior!r}: wanted dip or pixel")
    if steps < 1 or not 1 <= scales <= 5:
        raise ValueError(f"steps {steps}, scales {scales}: wanted at least one step and 1 to 5 scales")
    devices = [image.device] if image.device.type == "cuda" else []
    with frozen(model), torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        with torch.no_grad(), Probe(model, layer, grad=False) as probe:
            model(image)
        wanted = probe[layer].activation
        mask = torch.ones(wanted.shape[1]) if channel_mask is None else channel_mask
        mask = mask.to(wanted)
        normalised_error(wanted, torch.zeros_like(wanted), mask)

        def error(candidate: Tensor) -> Tensor:
            with Probe(model, layer) as probe:
                model(candidate)
            return normalised_error(wanted, probe[layer].activation, mask)

        if prior == "dip":
            network = HourGlass((16, 32, 64, 128, 128)[:scales], outputs=image.shape[1]).to(image)
            noise = 0.1 * torch.rand(1, 32, *image.shape[2:], device=image.device, dtype=image.dtype)
            prepare = normalise or (lambda x: x)

            def loss() -> tuple[Tensor, Tensor]:
                found = error(prepare(network(noise + input_noise * torch.randn_like(noise))))
                return found, found

            errors = _minimise(loss, list(network.parameters()), lr, steps)
            with torch.no_grad():
                result = network(noise)
        else:
            result = (0.1 * torch.randn_like(image)).requires_grad_()
            pixels = result

            def loss() -> tuple[Tensor, Tensor]:
                shift = torch.randint(-jitter, jitter + 1, (2,)).tolist()
                found = error(pixels.roll(shift, (2, 3)))
                rest = tv_weight * total_variation(pixels, tv_beta) + alpha_weight * pixels.abs().pow(alpha).sum()
                return found + rest, found

            errors = _minimise(loss, [result], lr, steps)
    return Inversion(result.detach(), errors)


def _minimise(
    loss: Callable[[], tuple[Tensor, Tensor]], parameters: list[Tensor], lr: float, steps: int
) -> Float[Tensor, " steps"]:
    optimiser = torch.optim.Adam(parameters, lr=lr)
    errors = []
    for _ in range(steps):
        optimiser.zero_grad()
        objective, error = loss()
        objective.backward()
        optimiser.step()
        errors.append(error.detach())
    return torch.stack(errors)
