"""Finding modules by name, type or property."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from saccade.spelling import near_it

Kind = type | tuple[type, ...] | Callable[[nn.Module], bool]


def get_module(model: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Args:
        model: Where to look.
        name: Dotted, as in `named_modules`; empty: the model itself.

    Returns:
        The module.

    Raises:
        ValueError: There is none; the message names the closest.

    Example:
        >>> get_module(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1")
        ReLU()
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [known for known, _ in model.named_modules() if known]
        hint = near_it(name, names, f"there is {', '.join(names[:4])}" if names else "it has no submodules")
        raise ValueError(f"{type(model).__name__} has no layer {name!r}; {hint}") from None


def find_layers(model: nn.Module, kind: Kind) -> dict[str, nn.Module]:
    """All modules of a type or with a property, by name, in the order in which the model defines them.

    Args:
        model: Where to look; the model itself counts, under the empty name.
        kind: A type, a tuple of types, or a predicate of the module.

    Returns:
        Name to module. A module that stands under two names is listed once, under the first.

    Example:
        >>> list(find_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), nn.Linear))
        ['0', '2']
    """
    return {name: module for name, module in model.named_modules() if _is_kind(module, kind)}


def _is_kind(module: nn.Module, kind: Kind) -> bool:
    if isinstance(kind, type | tuple):
        return isinstance(module, kind)
    return bool(kind(module))
