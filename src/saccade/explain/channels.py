"""Channel attribution: the extremal perturbation of an inner layer, one mask value a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.explain.ascent import Ascent, area_distance, ascend, check_areas
from saccade.explain.extremal_perturbation import REWARDS
from saccade.explain.perturbation import _what
from saccade.explain.plain import plain_area_distance
from saccade.explain.targets import Reward, Variant, check_output, class_indices
from saccade.surgery import Probe, edit_output, frozen


@dataclass(frozen=True)
class ChannelResult:
    """Which channels of a layer excite the target.

    Args:
        masks: Share kept of each channel, for each area.
        after_last_step: The same after the last step of the search.
        history: Reward and area term at every step.
        areas: Shares of the channels to keep.
    """

    masks: Float[Tensor, "areas c"]
    after_last_step: Float[Tensor, "areas c"]
    history: Float[Tensor, "areas 2 steps"]
    areas: tuple[float, ...]

    def top(self, count: int) -> Int[Tensor, " n"]:
        """The channels that matter most, by the mean of the masks over areas.

        Args:
            count: How many.

        Returns:
            Their indices, the best first.
        """
        return self.masks.mean(0).topk(count).indices


def channel_attribution(
    model: nn.Module,
    layer: str,
    image: Float[Tensor, "1 c h w"] | Float[Tensor, "1 d"],
    target: int,
    areas: Sequence[float],
    *,
    variant: Variant = "preserve",
    reward: str | Reward = "simple",
    max_iter: int = 800,
    growth: float | None = None,
    lr: float = 0.01,
    area_weight: float = 300.0,
    plain: bool = False,
    progress: Callable[[float], None] | None = None,
) -> ChannelResult:
    """Search the channels of a layer that excite the target most, for each share of them.

    A mask m in [0, 1]^C multiplies the layer's output (fade to zero, no smoothing, no jitter); objective, area term,
    optimiser and start are those of extremal perturbations. Any named layer works. Averaged over many images of a
    class, the masks tell the class's core channels.

    Args:
        model: Gives logits.
        layer: Name of the layer; its output has the channels in dimension 1.
        image: One input of the model.
        target: Class.
        areas: Shares of the channels to keep, number of channels / C.
        variant: `preserve`, `delete` or `dual`.
        reward: `simple`, `contrastive` or a function.
        max_iter: Steps.
        growth: Factor on the area's weight per step; `None`: 1.0035^(800 / max_iter).
        lr: Step size.
        area_weight: Initial weight of the area term.
        plain: Order equal mask values as `torch.sort` does, see `saccade.explain.plain`.
        progress: Called with the share that is done.

    Returns:
        Masks and history.

    Raises:
        TypeError: The target is no whole number.
        ValueError: Not one input, no such layer, an area outside (0, 1], a target out of range.
        RuntimeError: The reward became NaN.

    Source:
        arXiv:1910.08485, section 5.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
        >>> channel_attribution(model, "1", torch.rand(1, 3, 8, 8), 1, [0.5], max_iter=5).masks.shape
        torch.Size([1, 6])
    """
    if not isinstance(image, Tensor) or image.ndim < 2 or len(image) != 1 or not image.is_floating_point():
        raise ValueError(f"wanted one float input (1, ...), got {_what(image)}")
    if isinstance(reward, str) and reward not in REWARDS:
        raise ValueError(f"reward {reward!r}: wanted one of {', '.join(REWARDS)}")
    rewarded = REWARDS[reward] if isinstance(reward, str) else reward
    shares = check_areas(areas)
    settings = Ascent(max_iter, lr=lr, area_weight=area_weight, growth=growth)
    copies = len(shares) * (2 if variant == "dual" else 1)
    batch = image.expand(copies, *image.shape[1:])

    with frozen(model):
        with torch.no_grad(), Probe(model, layer, grad=False) as probe:
            output = check_output(model(image))
        classes = class_indices(target, len(shares), output.shape[1], image.device)
        activation = probe[layer].activation
        channels = activation.shape[1]

        def evaluate(masks: Tensor, step: int) -> tuple[Tensor, Tensor]:
            shown = {"preserve": masks, "delete": 1 - masks}.get(variant, torch.cat([masks, 1 - masks]))
            factor = shown.reshape(copies, channels, *([1] * (activation.ndim - 2)))
            with edit_output(model, layer, lambda out: out * factor.to(out.dtype)):
                value = rewarded(model(batch), classes, variant)
            return value.flatten(1).mean(1) if value.ndim > 1 else value, masks

        start = torch.ones(len(shares), channels, dtype=activation.dtype, device=activation.device)
        distance = plain_area_distance if plain else area_distance
        last, after, history = ascend(start, evaluate, shares, settings, progress, distance)
    return ChannelResult(last, after, history, shares)


def keep_channels_accuracy(
    model: nn.Module,
    layer: str,
    batches: Iterable[tuple[Tensor, Tensor]],
    order: Int[Tensor, " c"],
    shares: Sequence[float],
) -> list[float]:
    """Accuracy when only the first channels of an order are kept: the paper's diagnostic.

    Args:
        model: Gives logits.
        layer: The layer whose other channels are set to zero.
        batches: Pairs of images and labels.
        order: Channels, the most important first, such as `ChannelResult.top(c)`.
        shares: Shares of the channels to keep.

    Returns:
        Accuracy in [0, 1] for each share.

    Raises:
        ValueError: No such layer, no batches.
    """
    right, total = [0] * len(shares), 0
    with frozen(model), torch.no_grad():
        for images, labels in batches:
            total += len(labels)
            for i, share in enumerate(shares):
                kept = order[: round(share * len(order))]

                def mask(out: Tensor, kept: Tensor = kept) -> Tensor:
                    factor = torch.zeros(out.shape[1], dtype=out.dtype, device=out.device)
                    factor[kept.to(out.device)] = 1
                    return out * factor.view(1, -1, *([1] * (out.ndim - 2)))

                with edit_output(model, layer, mask):
                    output = model(images)
                scores = output.flatten(2).mean(2) if output.ndim > 2 else output
                right[i] += int((scores.argmax(1) == labels.to(scores.device)).sum())
    if not total:
        raise ValueError("no batches to measure the accuracy on")
    return [count / total for count in right]
