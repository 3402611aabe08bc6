"""Backbones that start from torchvision's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from saccade.surgery import inserted_prefixes


def load_backbone(model: nn.Module, state: Mapping[str, Tensor], left_out: Sequence[str] = ()) -> None:
    """Load a torchvision network with a classifier `fc` into one with the same keys, in place.

    Args:
        model: With a linear classifier `fc`, which is loaded where it has as many classes, and left as it is otherwise.
        state: The state dict.
        left_out: Beginnings of keys of `model` that torchvision's network does not have, besides inserted blocks.

    Raises:
        ValueError: A key of the backbone is missing, unknown, or of another shape; nothing is loaded then.

    Example:
        >>> model = nn.ModuleDict({"conv1": nn.Conv2d(3, 8, 3), "fc": nn.Linear(8, 5)})
        >>> state = {key: value + 1 for key, value in model.state_dict().items()}
        >>> load_backbone(model, state)
        >>> bool((model["conv1"].bias == state["conv1.bias"]).all())
        True
    """
    whole, added = model.state_dict(), ("fc.", *left_out, *inserted_prefixes(model))
    own = {key: value for key, value in whole.items() if not key.startswith(added)}
    given = {key: value for key, value in state.items() if not key.startswith("fc.")}
    odd = sorted(set(own) ^ set(given)) or sorted(key for key in own if own[key].shape != given[key].shape)
    if odd:
        raise ValueError(
            f"the state dict is not one of this {type(model).__name__}: "
            f"{', '.join(odd[:5])} missing, extra or shaped otherwise"
        )
    if "fc.weight" in state and state["fc.weight"].shape == whole["fc.weight"].shape:
        given |= {"fc.weight": state["fc.weight"], "fc.bias": state["fc.bias"]}
    model.load_state_dict(given, strict=False)
