"""Reading and changing what flows through a named layer, for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saccade.surgery.names import get_module


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return type(value)((key, map_tensors(item, change)) for key, item in value.items())
    return value


@dataclass(frozen=True)
class Captured:
    """What one layer saw in its last call.

    Args:
        tensors: All tensors of its input or output, in order.
    """

    tensors: tuple[Tensor, ...]

    @property
    def activation(self) -> Tensor:
        """The first tensor."""
        return self.tensors[0]

    @property
    def gradient(self) -> Tensor | None:
        """Gradient of the first tensor, after a backward pass; `None` before, or where none arrived."""
        return self.tensors[0].grad


class Probe:
    """Keeps the activations of named layers, and after a backward pass their gradients.

    Inside the context each named layer's input or output is kept at every call (a later call takes the place of an
    earlier one) and copied on, so that operations that work in place behind it cannot spoil it; in-place activation
    modules are switched to their ordinary form and switched back at the end. The layers' tensors require a gradient
    even where the image and the weights do not, which makes the pseudo-gradient of backward rules readable. No hook
    is left behind, also after an exception. What was captured stays readable after the context.

    A probe may be entered again inside itself, and several probes may watch one model.

    Args:
        model: The model.
        layers: A name or several, as in `get_module`; the empty name with `where="input"` is the model's input.
        where: Whether the input or the output of the layers is kept.
        grad: Whether gradients are wanted; without it the activations are detached.

    Raises:
        ValueError: No such layer, or `where` is something else.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
        >>> with Probe(model, "1") as probe:
        ...     model(torch.ones(4, 2)).sum().backward()
        >>> probe["1"].activation.shape, probe["1"].gradient.shape
        (torch.Size([4, 3]), torch.Size([4, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str],
        *,
        where: Literal["input", "output"] = "output",
        grad: bool = True,
    ) -> None:
        if where not in ("input", "output"):
            raise ValueError(f"where={where!r}: wanted 'input' or 'output'")
        names = [layers] if isinstance(layers, str) else list(layers)
        self._layers = {name: get_module(model, name) for name in names}
        self._model = model
        self._where = where
        self._grad = grad
        self._captured: dict[str, Captured] = {}
        self._stack: ExitStack | None = None
        self._depth = 0

    def __enter__(self) -> Probe:
        self._depth += 1
        if self._depth > 1:
            return self
        with ExitStack() as stack:
            stack.enter_context(_out_of_place(self._model))
            for name, layer in self._layers.items():
                if self._where == "input":
                    handle = layer.register_forward_pre_hook(self._before(name), with_kwargs=True)
                else:
                    handle = layer.register_forward_hook(self._after(name))
                stack.callback(handle.remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._stack is not None:
            self._stack.close()
            self._stack = None

    def __contains__(self, name: str) -> bool:
        return name in self._captured

    def __getitem__(self, name: str) -> Captured:
        if name not in self._layers:
            raise ValueError(f"the probe does not watch {name!r}, it watches {', '.join(map(repr, self._layers))}")
        if name not in self._captured:
            raise ValueError(f"layer {name!r} was not run inside the probe")
        return self._captured[name]

    def _keep(self, name: str, value: Any) -> Any:
        kept: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            if not self._grad:
                kept.append(tensor.detach().clone())
                return tensor
            if not (torch.is_grad_enabled() and (tensor.is_floating_point() or tensor.is_complex())):
                kept.append(tensor)
                return tensor.clone()
            if tensor.is_leaf:
                tensor = tensor.detach().requires_grad_() if not tensor.requires_grad else tensor.view_as(tensor)
            if not tensor.is_leaf:
                tensor.retain_grad()
            kept.append(tensor)
            return tensor.clone()

        passed_on = map_tensors(value, keep)
        if kept:
            self._captured[name] = Captured(tuple(kept))
        return passed_on

    def _after(self, name: str) -> Callable[..., Any]:
        return lambda module, args, output: self._keep(name, output)

    def _before(self, name: str) -> Callable[..., Any]:
        return lambda module, args, kwargs: self._keep(name, (args, kwargs))


@contextmanager
def _out_of_place(model: nn.Module) -> Iterator[None]:
    changed = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in changed:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True  # type: ignore[assignment]


@contextmanager
def edit_output(model: nn.Module, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Replace what a named layer gives, inside the context.

    Args:
        model: The model.
        name: The layer.
        change: Gets the layer's output, gives what the rest of the model sees.

    Yields:
        Nothing.

    Raises:
        ValueError: No such layer.

    Example:
        >>> model = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> with edit_output(model, "0", lambda out: out + 1):
        ...     model(torch.zeros(2))
        tensor([1., 1.])
    """
    handle = get_module(model, name).register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()
