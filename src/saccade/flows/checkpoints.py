"""State dicts of the authors' flows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor


def convert_manifold_ode(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A flow's weights from the authors' code, sphere or hyperboloid, to ours.

    Args:
        state: Keys `...func.{0,2,4,...}.{weight,bias}`, linear layers at even places.

    Returns:
        For [`ManifoldCNF`][saccade.flows.manifold_ode.ManifoldCNF].

    Raises:
        ValueError: An unknown key, or layers that are missing.

    Example:
        >>> import torch
        >>> state = {f"func.func.func.0.{part}": torch.ones(1) for part in ("weight", "bias")}
        >>> list(convert_manifold_ode(state))
        ['ode.field.net.layers.0.weight', 'ode.field.net.layers.0.bias']
    """
    pattern = re.compile(r"(?:.*\.)?func\.(\d+)\.(weight|bias)")
    found: dict[str, Tensor] = {}
    numbers: set[int] = set()
    for key, value in state.items():
        match = pattern.fullmatch(key)
        if match is None or int(match[1]) % 2:
            raise ValueError(f"unknown key {key!r}: linear layers `func.0`, `func.2`, ... are accepted")
        numbers.add(int(match[1]) // 2)
        found[f"ode.field.net.layers.{int(match[1]) // 2}.{match[2]}"] = value
    if not numbers or numbers != set(range(len(numbers))) or len(found) != 2 * len(numbers):
        raise ValueError(f"layers are missing: there are {', '.join(sorted(state)) or 'none'}")
    return found
