"""What is asked of a model's output: target classes, output gradients, rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

Variant = Literal["preserve", "delete", "dual"]
Reward = Callable[[Tensor, Tensor, Variant], Tensor]
Target = int | Sequence[int] | Tensor


def check_output(output: object) -> Tensor:
    """The model's output, if it is something that can be explained.

    Args:
        output: What the model gave.

    Returns:
        It, unchanged.

    Raises:
        ValueError: It is not a float tensor (n, k) or (n, k, h, w).
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"the model gives a {type(output).__name__}: wanted a tensor (n, k) or (n, k, h, w) of logits")
    if output.ndim not in (2, 4) or not output.is_floating_point():
        raise ValueError(f"the model gives {output.dtype} {tuple(output.shape)}: wanted float (n, k) or (n, k, h, w)")
    return output


def class_indices(target: Target, count: int, classes: int, device: torch.device) -> Int[Tensor, " n"]:
    """One class index per item.

    Args:
        target: One class for all items, or one for each.
        count: Number of items.
        classes: Number of the output's channels.
        device: Where the result lives.

    Returns:
        `count` indices.

    Raises:
        TypeError: Not whole numbers.
        ValueError: Out of range, or another number of classes than items.
    """
    values = target.tolist() if isinstance(target, Tensor) else target
    values = [values] if not isinstance(values, Sequence) else list(values)
    if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        raise TypeError(f"a target is a class index or a list of them, not {target!r}")
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise ValueError(f"{len(values)} targets for {count} images: wanted one, or one for each")
    outside = [value for value in values if not 0 <= value < classes]
    if outside:
        raise ValueError(f"target {outside[0]} is out of range: the model has classes 0 to {classes - 1}")
    return torch.tensor(values, device=device)


def output_gradient(
    output: Float[Tensor, "n k *space"], target: Target, *, pointing: bool = False
) -> Float[Tensor, "n k *space"]:
    """The gradient at the output that a back-propagation method starts from.

    Args:
        output: Logits.
        target: One class for all items or one for each: one-hot, repeated over positions. A tensor of the output's
            shape is taken as it is.
        pointing: Weight the positions by the softmax of the target's logits over them instead (the pointing game's
            gradient: where the class is seen). For a single position it is 1.

    Returns:
        A gradient of the output's shape.

    Raises:
        TypeError: The target is no class index.
        ValueError: It is out of range.

    Example:
        >>> output_gradient(torch.zeros(2, 3), [0, 2])
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """
    if isinstance(target, Tensor) and target.is_floating_point():
        if target.shape != output.shape:
            raise ValueError(
                f"an output gradient has the output's shape {tuple(output.shape)}, not {tuple(target.shape)}"
            )
        return target.to(output)
    index = class_indices(target, output.shape[0], output.shape[1], output.device)
    item = torch.arange(len(index), device=output.device)
    gradient = torch.zeros_like(output)
    if pointing and output.ndim > 2:
        chosen = output.detach()[item, index]
        gradient[item, index] = chosen.flatten(1).softmax(1).view_as(chosen)
    else:
        gradient[item, index] = 1
    return gradient


def simple_reward(
    output: Float[Tensor, "n k *space"], target: Int[Tensor, " m"], variant: Variant
) -> Float[Tensor, " m *space"]:
    """How much the masked images excite the target: y_c; `delete`: -y_c; `dual`: kept minus deleted half.

    Args:
        output: Logits of the perturbed images; `dual`: the kept images, then the deleted ones, n = 2 m.
        target: Class of each mask.
        variant: What the mask is to do.

    Returns:
        One reward a mask and position.

    Raises:
        ValueError: An unknown variant.

    Example:
        >>> simple_reward(torch.tensor([[1.0, 5.0], [2.0, 3.0]]), torch.tensor([1]), "dual")
        tensor([2.])
    """
    return _by_variant(output, target, variant, lambda y, c: y[torch.arange(len(c), device=y.device), c])


def contrastive_reward(
    output: Float[Tensor, "n k *space"], target: Int[Tensor, " m"], variant: Variant, *, mix_items: bool = False
) -> Float[Tensor, ...]:
    """As `simple_reward`, with y_c - max over other classes in place of y_c.

    Args:
        output: Logits of the perturbed images.
        target: Class of each mask.
        variant: What the mask is to do.
        mix_items: Give what the authors' code gives for several masks: the maximum keeps its dimension there, and
            (m, m, *space) results, entry [i, j] being y_c of item j minus the maximum of item i.

    Returns:
        One reward a mask and position.

    Raises:
        ValueError: An unknown variant, or a single class.

    Example:
        >>> contrastive_reward(torch.tensor([[1.0, 5.0, 4.0]]), torch.tensor([1]), "preserve")
        tensor([1.])
    """
    if output.shape[1] < 2:
        raise ValueError("a contrastive reward needs at least two classes, the model has one")

    def margin(y: Tensor, c: Tensor) -> Tensor:
        item = torch.arange(len(c), device=y.device)
        others = y.clone()
        others[item, c] = -torch.inf
        best = others.amax(1)
        return y[item, c] - (best.unsqueeze(1) if mix_items else best)

    return _by_variant(output, target, variant, margin)


def _by_variant(output: Tensor, target: Tensor, variant: Variant, value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    if variant not in get_args(Variant):
        raise ValueError(f"variant {variant!r}: wanted one of {', '.join(get_args(Variant))}")
    if variant == "dual":
        kept, deleted = output.chunk(2)
        return value(kept, target) - value(deleted, target)
    return value(output, target) if variant == "preserve" else -value(output, target)
