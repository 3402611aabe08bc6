"""Inserting and replacing modules by name, reversibly, with the existing state-dict keys kept.

What happens to keys. `insert_after(model, "layer2", block)` leaves every key that was there as it was
(`layer2.0.conv1.weight`), so that published weights load before and after the cut; the block's keys appear as
`layer2.inserted.*`. `replace_module` swaps the keys below that name for those of the new module. A model that was cut
is saved and loaded by `torch.save` and by its state dict like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from saccade.surgery.hooks import Probe
from saccade.surgery.layers import frozen
from saccade.surgery.names import Kind, _is_kind, get_module


class Undo:
    """Takes a cut back: call it, or use it as a context manager that does so at its end.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> with replace_module(model, "0", nn.Identity()):
        ...     print(model[0])
        Identity()
        >>> model[0]
        Linear(in_features=2, out_features=2, bias=True)
    """

    def __init__(self, steps: list[Callable[[], None]]) -> None:
        self._steps = steps

    def __call__(self) -> None:
        """Undo; a second call does nothing."""
        while self._steps:
            self._steps.pop()()

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *_: object) -> None:
        self()


class Inserted(nn.Module):
    """A module with a block that runs after (or before) it; what `insert_after` puts in the module's place.

    Attributes, items and state-dict keys of the host are reached as if the block were not there.

    Args:
        host: The module that was there.
        block: The module that is added.
        name: The block's name: its keys are `NAME.*` beside the host's own.
        before: Whether the block runs on the host's input instead of its output.
    """

    def __init__(self, host: nn.Module, block: nn.Module, name: str = "inserted", before: bool = False) -> None:
        super().__init__()
        if not name.isidentifier() or name in ("host", "before"):
            raise ValueError(f"{name!r} cannot name an inserted block: wanted an identifier other than host and before")
        if hasattr(host, name):
            raise ValueError(f"{type(host).__name__} already has {name!r}: give the inserted block another name")
        self.before = before
        self._name = name
        self.host = host
        self.add_module(name, block)
        self.register_state_dict_post_hook(_drop_host)
        self.register_load_state_dict_pre_hook(_add_host)

    @property
    def block(self) -> nn.Module:
        """The block that was inserted."""
        return self._modules[self._name]  # type: ignore[return-value]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Host then block, or block then host; the block sees the first positional argument."""
        if self.before:
            return self.host(self.block(args[0]), *args[1:], **kwargs)
        return self.block(self.host(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "host":
                raise
            return getattr(self.host, name)

    def __getitem__(self, index: Any) -> Any:
        return self.host[index]  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.host)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True


def inserted_prefixes(model: nn.Module) -> tuple[str, ...]:
    """What the state-dict keys of all inserted blocks begin with.

    Args:
        model: Into which blocks may have been inserted.

    Returns:
        Such as `("layer2.0.inserted.",)`.
    """
    return tuple(
        f"{name}.{module._name}.".replace("host.", "").lstrip(".")
        for name, module in model.named_modules()
        if isinstance(module, Inserted)
    )


def _drop_host(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + "host.")]:
        state[prefix + key[len(prefix) + len("host.") :]] = state.pop(key)


def _add_host(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = prefix + module._name + "."  # type: ignore[operator]
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(own)]:
        state[prefix + "host." + key[len(prefix) :]] = state.pop(key)


def insert_after(
    model: nn.Module, name: str, block: nn.Module, *, example: Tensor | None = None, as_name: str = "inserted"
) -> Undo:
    """Run a block on the output of a named module, in place.

    Args:
        model: Is changed.
        name: The module after which the block runs.
        block: Takes and gives one tensor of the same shape.
        example: An input of the model; where it is given, the shapes are checked by a forward pass (in eval mode,
            without gradient) before anything is changed.
        as_name: The block's name beside the module's own children, and in the state dict.

    Returns:
        Call it, or leave it as a context, to take the block out again.

    Raises:
        ValueError: No such layer, the name is taken, or the block does not keep the shape.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        >>> undo = insert_after(model, "0", nn.LayerNorm(8), example=torch.zeros(2, 4))
        >>> sorted(model.state_dict())
        ['0.bias', '0.inserted.bias', '0.inserted.weight', '0.weight']
    """
    return _insert(model, name, block, example, as_name, before=False)


def insert_before(
    model: nn.Module, name: str, block: nn.Module, *, example: Tensor | None = None, as_name: str = "inserted"
) -> Undo:
    """Run a block on the first input of a named module, in place; as `insert_after` otherwise.

    Args:
        model: Is changed.
        name: The module before which the block runs.
        block: Takes and gives one tensor of the same shape.
        example: An input of the model, to check the shapes with.
        as_name: The block's name beside the module's own children, and in the state dict.

    Returns:
        Call it, or leave it as a context, to take the block out again.

    Raises:
        ValueError: No such layer, the name is taken, or the block does not keep the shape.
    """
    return _insert(model, name, block, example, as_name, before=True)


def _insert(
    model: nn.Module, name: str, block: nn.Module, example: Tensor | None, as_name: str, *, before: bool
) -> Undo:
    host = get_module(model, name)
    if example is not None:
        seen = _seen(model, name, example, "input" if before else "output")
        shape = _block_shape(block, seen)
        if shape != seen.shape:
            side = "takes" if before else "gives"
            raise ValueError(
                f"{name!r} {side} {tuple(seen.shape)} and {type(block).__name__} makes {tuple(shape)} of it: "
                "an inserted block has to keep the shape"
            )
    block.train(host.training)
    return replace_module(model, name, Inserted(host, block, as_name, before))


def _block_shape(block: nn.Module, seen: Tensor) -> torch.Size:
    try:
        with frozen(block), torch.no_grad():
            out = block(seen)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{type(block).__name__} does not accept {tuple(seen.shape)}: {reason}") from error
    if not isinstance(out, Tensor):
        raise ValueError(f"{type(block).__name__} gives a {type(out).__name__}, wanted one tensor")
    return out.shape


def _seen(model: nn.Module, name: str, example: Tensor, where: str) -> Tensor:
    with frozen(model), torch.no_grad(), Probe(model, name, where=where, grad=False) as probe:  # type: ignore[arg-type]
        model(example)
    if name not in probe:
        raise ValueError(f"the forward pass does not reach {name!r}")
    return probe[name].activation


def replace_module(model: nn.Module, name: str, new: nn.Module, *, example: Tensor | None = None) -> Undo:
    """Put another module in the place of a named one, also inside Sequential, ModuleList and ModuleDict.

    Args:
        model: Is changed.
        name: What is replaced; a module that stands under several names is replaced under this one alone.
        new: What comes in its place.
        example: An input of the model; where it is given, a forward pass before and after has to give the same shape
            at that place, else the old module stays.

    Returns:
        Call it, or leave it as a context, to put the old module back.

    Raises:
        ValueError: No such layer, the empty name, or another output shape.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        >>> undo = replace_module(model, "1", nn.GELU(), example=torch.zeros(2, 4))
        >>> model[1]
        GELU(approximate='none')
    """
    old = get_module(model, name)
    if not name:
        raise ValueError("the model itself cannot be replaced: name one of its layers")
    parent_name, _, key = name.rpartition(".")
    parent = get_module(model, parent_name)
    while key not in parent._modules and isinstance(parent, Inserted):
        parent = parent.host

    before = _seen(model, name, example, "output").shape if example is not None else None
    setattr(parent, key, new)
    undo = Undo([lambda: setattr(parent, key, old)])
    if example is not None:
        try:
            after = _seen(model, name, example, "output").shape
        except (RuntimeError, ValueError) as error:
            undo()
            raise ValueError(f"{type(new).__name__} does not fit at {name!r}: {error}") from error
        if after != before:
            undo()
            raise ValueError(f"{type(new).__name__} at {name!r} gives {tuple(after)} instead of {tuple(before or ())}")
    return undo


def map_modules(model: nn.Module, kind: Kind, change: Callable[[str, nn.Module], nn.Module]) -> Undo:
    """Replace every module of a kind by what a function makes of it.

    Args:
        model: Is changed.
        kind: A type, a tuple of types, or a predicate of the module.
        change: Called with name and module, gives the new module; called once for a module that stands under several
            names, and not for modules below one that was replaced.

    Returns:
        Call it, or leave it as a context, to put all old modules back.

    Raises:
        ValueError: The model itself is of that kind, and cannot be replaced from inside.

    Example:
        >>> model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU()))
        >>> undo = map_modules(model, nn.ReLU, lambda name, relu: nn.SiLU())
        >>> model[1][0]
        SiLU()
    """
    if _is_kind(model, kind):
        raise ValueError(f"the model itself ({type(model).__name__}) is of the kind to replace")
    steps: list[Callable[[], None]] = []
    made: dict[int, nn.Module] = {}

    def visit(parent: nn.Module, prefix: str) -> None:
        for key, child in list(parent._modules.items()):
            if child is None:
                continue
            name = f"{prefix}{key}"
            if _is_kind(child, kind):
                if id(child) not in made:
                    made[id(child)] = change(name, child)
                setattr(parent, key, made[id(child)])
                steps.append(lambda parent=parent, key=key, child=child: setattr(parent, key, child))  # type: ignore[misc]
            else:
                visit(child, f"{name}.")

    visit(model, "")
    return Undo(steps)
