"""Backward rules other than the derivative, for the operations of a forward pass, whoever calls them.

A rule is a `TorchFunctionMode`: inside its context every call of an operation is seen, be it a module, a function or
in place, and replaced by an autograd function with the same value and another backward. Nothing global is changed;
modes belong to the thread that enters them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

RELU = {torch.relu, F.relu, Tensor.relu}
RELU_IN_PLACE = {torch.relu_, F.relu_, Tensor.relu_}
LINEAR = {F.conv1d, F.conv2d, F.conv3d, F.linear}
AVERAGE = {
    F.avg_pool1d,
    F.avg_pool2d,
    F.avg_pool3d,
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
    torch.mean,
    Tensor.mean,
}
SUM = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__}
SUM_IN_PLACE = {Tensor.add_, Tensor.__iadd__}
TINY = 1e-20


class ReluRule(TorchFunctionMode):
    """The rule of deconvnet or of guided backprop for every ReLU.

    Args:
        guided: Whether the gradient is also stopped where the input was negative (exactly 0 passes); without it the
            input is ignored.
    """

    def __init__(self, *, guided: bool) -> None:
        super().__init__()
        self.guided = guided

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace ReLUs."""
        kwargs = kwargs or {}
        if func in RELU_IN_PLACE or (func in RELU and (kwargs.get("inplace") or args[1:2] == (True,))):
            x = args[0] if args else kwargs["input"]
            return x.copy_(_PositiveGradient.apply(x, self.guided))
        if func in RELU:
            return _PositiveGradient.apply(args[0] if args else kwargs["input"], self.guided)
        return func(*args, **kwargs)


class _PositiveGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, guided):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x >= 0 if guided else None)
        return x.relu()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (passes,) = ctx.saved_tensors
        grad = grad.clamp(min=0)
        return grad if passes is None else grad * passes, None


class ExcitationRule(TorchFunctionMode):
    """Excitation backprop: at each neuron the gradient is shared out in proportion to what excited it.

    Linear layers with input x and weight W: g_in = x * f*(W⁺; g / (f(x; W⁺) + 1e-20)), W⁺ = max(W, 0), no bias;
    average pooling the same with itself; batch norm passes the gradient; a sum of two activations of one shape gives
    each its part of the sum (0 of 0 is 0); everything else has its derivative.
    """

    def __init__(self) -> None:
        super().__init__()
        self.negated: Tensor | None = None  # a weight that counts with the opposite sign during a backward pass

    def positive(self, weight: Tensor) -> Tensor:
        """W⁺, or (-W)⁺ for the weight that is negated at the moment."""
        flipped = self.negated is not None and weight is self.negated
        return (-weight if flipped else weight).detach().clamp(min=0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace linear operations, pooling, batch norm and sums."""
        kwargs = kwargs or {}
        if func in LINEAR:
            named = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
            x, weight, rest = named.pop("input"), named.pop("weight"), args[3:]
            named_rest = {key: value for key, value in named.items() if key != "bias"}

            def excite(x: Tensor) -> Tensor:
                return func(x, self.positive(weight), None, *rest, **named_rest)

            return _Share.apply(x, lambda x: func(x, weight, named.get("bias"), *rest, **named_rest), excite)
        if func in AVERAGE and args and args[0].ndim > 2:
            rest = args[1:]
            return _Share.apply(args[0], *[lambda x: func(x, *rest, **kwargs)] * 2)
        if func is F.batch_norm:
            return _Pass.apply(args[0] if args else kwargs["input"], func(*args, **kwargs).detach())
        if func in SUM or func in SUM_IN_PLACE:
            a, b = (*args, kwargs.get("other"))[:2]
            if _are_activations(a, b):
                b = b * kwargs["alpha"] if kwargs.get("alpha", 1) != 1 else b
                total = _Split.apply(a, b)
                return a.copy_(total) if func in SUM_IN_PLACE else total
        return func(*args, **kwargs)


def _are_activations(a: Any, b: Any) -> bool:
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and a.shape == b.shape
        and a.ndim > 1
        and a.is_floating_point()
        and b.is_floating_point()
        and not any(isinstance(tensor, torch.nn.Parameter) for tensor in (a, b))
    )


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, compute, excite):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.excite = excite
        return compute(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            excited = ctx.excite(x)
            (back,) = torch.autograd.grad(excited, x, grad / (excited.detach() + TINY))
        return x.detach() * back, None, None


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value):  # type: ignore[no-untyped-def]
        return value.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad, None


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):  # type: ignore[no-untyped-def]
        total = a + b
        zero = total == 0
        ctx.save_for_backward(*(torch.where(zero, 0, part / total) for part in (a, b)))
        return total

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        first, second = ctx.saved_tensors
        return first * grad, second * grad
