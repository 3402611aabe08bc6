"""Smooth masks: a coarse grid of parameters, blown up by a smooth maximum over a radial kernel."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Pooling = Literal["softmax", "sum", "sigmoid"]
LARGEST_EXPONENT = 60.0  # exp of it and sums of it stay far inside float32


class SmoothMask(nn.Module):
    """The operator from a parameter grid (n, 1, h, w) to smooth masks of an image.

    Mask value at pixel u: the smooth maximum over the parameters i around it,
    m(u) = Σ k_i p_i exp(T k_i p_i) / Σ exp(T k_i p_i), with k_i = exp(-2 max(0, d/sigma - 1/2)²), d the distance from
    u to parameter i's centre, T the coldness. A mask cannot change faster than the kernel does, whatever p is.

    The kernel depends on a pixel's phase within its cell alone, so everything is computed on (step², cells) instead
    of nearest-upsampling one plane for each of the (2R+1)² neighbours, neighbour by neighbour in cache, forward and
    backward; nothing of the size neighbours times pixels is ever held. Results equal the plain form.

    The "full" mask exceeds the image by about sigma on each side, so that the border is no special place; `crop` cuts
    the image's part out.

    Args:
        shape: Height and width of the image in pixels.
        step: Pixels per parameter.
        sigma: Radius of the kernel in pixels.
        pooling: `softmax`, the smooth maximum; `sum` of k_i p_i; `sigmoid` of T * sum - 3.
        coldness: T; infinity gives the hard maximum (`sigmoid`: whether the sum exceeds 5).
        clamp: Whether values are clamped to [0, 1].

    Raises:
        ValueError: A size, step or sigma that is not positive, an unknown pooling, a coldness that is not positive.

    Source:
        arXiv:1910.08485, section 3.2; kernel and geometry as in its library, with the padding raised by one where the
        library's crop would not fit (sigma no multiple of step).

    Example:
        >>> masks = SmoothMask((28, 35), step=7, sigma=14)
        >>> masks.shape_in, masks.shape_out
        ((4, 5), (50, 57))
        >>> masks(torch.ones(2, 1, 4, 5)).shape
        torch.Size([2, 1, 28, 35])
    """

    def __init__(
        self,
        shape: tuple[int, int],
        step: int = 7,
        sigma: float = 21.0,
        *,
        pooling: Pooling = "softmax",
        coldness: float = 20.0,
        clamp: bool = True,
    ) -> None:
        super().__init__()
        if len(shape) != 2 or any(not isinstance(side, int) or side < 1 for side in shape):
            raise ValueError(f"shape {shape!r}: wanted (height, width) in pixels")
        if not isinstance(step, int) or isinstance(step, bool) or step < 1:
            raise ValueError(f"step is {step!r}: wanted a positive whole number of pixels")
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma is {sigma!r}: wanted a positive number of pixels")
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling {pooling!r}: wanted one of {', '.join(get_args(Pooling))}")
        if not coldness > 0:
            raise ValueError(f"coldness is {coldness!r}: wanted a positive number or infinity")
        self.shape = (shape[0], shape[1])
        self.step = step
        self.sigma = sigma
        self.pooling = pooling
        self.coldness = coldness
        self.clamp = clamp

        self.margin = sigma
        self.radius = 1 + math.ceil(sigma / step)
        self.padding = 1 + math.ceil((self.margin + sigma) / step)
        self.shape_in = self._per_axis(lambda side: math.ceil(side / step))
        while any(out < round(self.margin) + side for out, side in zip(self.shape_out, self.shape, strict=True)):
            self.padding += 1
        self.register_buffer("weight", self._weights(), persistent=False)
        self.weight: Tensor

    def _per_axis(self, function) -> tuple[int, int]:  # type: ignore[no-untyped-def]
        return function(self.shape[0]), function(self.shape[1])

    @property
    def shape_mid(self) -> tuple[int, int]:
        """Cells of the full mask, per axis."""
        h, w = self.shape_in
        grown = 2 * (self.padding - self.radius)
        return h + grown, w + grown

    @property
    def shape_out(self) -> tuple[int, int]:
        """Pixels of the full mask, per axis."""
        h, w = self.shape_mid
        return self.step * h - self.step + 1, self.step * w - self.step + 1

    def _weights(self) -> Float[Tensor, "neighbours phases"]:
        """Kernel values for each neighbour (row by row) and each phase of a pixel within its cell."""
        reach = 2 * self.radius + 1
        phase = torch.arange(self.step, dtype=torch.float64)
        offset = self.step * (self.padding - torch.arange(reach, dtype=torch.float64)) - self.margin
        distance = offset[:, None] + phase  # along one axis: pixel minus centre
        squared = distance**2
        radial = (squared[:, None, :, None] + squared[None, :, None, :]).sqrt()
        kernel = torch.exp(-2 * (radial / self.sigma - 0.5).clamp(min=0) ** 2)
        return kernel.reshape(reach * reach, self.step**2).to(torch.get_default_dtype())

    def forward(self, parameters: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 H W"]:
        """Masks of the image's size.

        Args:
            parameters: Grid of the size `shape_in`; usually in [0, 1].

        Returns:
            Masks.

        Raises:
            ValueError: Another shape.
        """
        return self.crop(self.full(parameters))

    def crop(self, full: Float[Tensor, "n 1 H W"]) -> Float[Tensor, "n 1 h w"]:
        """Cut the image's part out of full masks."""
        top = round(self.margin)
        return full[..., top : top + self.shape[0], top : top + self.shape[1]]

    def full(self, parameters: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 H W"]:
        """Masks of the size `shape_out`, which exceed the image by the margin."""
        if parameters.ndim != 4 or parameters.shape[1:] != (1, *self.shape_in):
            raise ValueError(
                f"parameters have to be (n, 1, {self.shape_in[0]}, {self.shape_in[1]}); got {tuple(parameters.shape)}"
            )
        return self._full(parameters, bounded=False)

    def _full(self, parameters: Tensor, *, bounded: bool) -> Tensor:
        """As `full`; `bounded` promises parameters in [-1, 1]."""
        with torch.autocast(parameters.device.type, enabled=False):
            cells = self._pooled(F.pad(parameters, [self.padding] * 4), bounded)
        h, w = self.shape_mid
        full = rearrange(cells, "n (y x) (h w) -> n 1 (h y) (w x)", y=self.step, x=self.step, h=h, w=w)
        full = full[..., : self.shape_out[0], : self.shape_out[1]]
        # strict above: a saturated pixel passes no gradient, in the library as here
        return torch.where(full >= 1, 1.0, full.clamp(min=0)) if self.clamp else full

    def _pooled(self, padded: Tensor, bounded: bool) -> Tensor:
        """Mask values (n, phases, cells)."""
        weight = self.weight.to(padded.dtype)
        reach = 2 * self.radius + 1
        if self.pooling == "softmax":
            neighbours = F.unfold(padded, reach)
            if math.isinf(self.coldness):
                return _hard_maximum(neighbours, weight)
            bounded = bounded and self.coldness <= LARGEST_EXPONENT
            return _SmoothMaximum.apply(neighbours, weight, self.coldness, bounded)
        cells = F.conv2d(padded, weight.T.reshape(-1, 1, reach, reach)).flatten(2)
        if self.pooling == "sum":
            return cells
        return (cells > 5).to(cells) if math.isinf(self.coldness) else (self.coldness * cells - 3).sigmoid()

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.shape}, step={self.step}, sigma={self.sigma}, pooling={self.pooling!r}, T={self.coldness}"


def _hard_maximum(neighbours: Tensor, weight: Tensor) -> Tensor:
    best = weight[0][:, None] * neighbours[:, :1]
    for i in range(1, len(weight)):
        best = torch.maximum(best, weight[i][:, None] * neighbours[:, i : i + 1])
    return best


class _SmoothMaximum(torch.autograd.Function):
    """m = Σ t e / Σ e over neighbours, e = exp(T t - shift), t = kernel times parameter, neighbour by neighbour.

    The shift is T where the parameters are bounded by 1, else the largest exponent. With D = Σ e the gradient is
    ∂m/∂t = e (1 + T t - T m) / D.
    """

    @staticmethod
    def forward(ctx, neighbours, weight, coldness, bounded):  # type: ignore[no-untyped-def]
        size = (neighbours.shape[0], weight.shape[1], neighbours.shape[2])
        shift = coldness if bounded else coldness * _hard_maximum(neighbours, weight)
        below, above = neighbours.new_zeros(size), neighbours.new_zeros(size)
        for i, kernel in enumerate(weight.unsqueeze(-1)):
            value = kernel * neighbours[:, i : i + 1]
            share = (value * coldness).sub_(shift).exp_()
            below += share
            above.addcmul_(value, share)
        mean = above.div_(below)
        ctx.save_for_backward(neighbours, weight, below, mean, *([] if bounded else [shift]))
        ctx.coldness = coldness
        return mean.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        with torch.autocast(grad.device.type, enabled=False):
            return _SmoothMaximum._gradient(ctx, grad), None, None, None

    @staticmethod
    def _gradient(ctx, grad):  # type: ignore[no-untyped-def]
        neighbours, weight, below, mean, *shift = ctx.saved_tensors
        coldness = ctx.coldness
        top = shift[0] if shift else coldness
        # e (1 + T t - T m) / D, with the exponent T t - top: e (exponent * density + rest)
        density = grad / below
        rest = ((1 + top) - coldness * mean) * density
        gradient = torch.empty_like(neighbours)
        for i, kernel in enumerate(weight):
            exponent = ((coldness * kernel)[:, None] * neighbours[:, i : i + 1]).sub_(top)
            share = exponent.exp().mul_(exponent.mul_(density).add_(rest))
            gradient[:, i] = kernel @ share
        return gradient
