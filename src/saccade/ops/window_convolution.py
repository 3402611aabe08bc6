"""Convolving very many small images at once, as matrix products that have the images for their long side."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def window_convolution(
    x: Float[Tensor, "h w c n"], weight: Float[Tensor, "d c k k"], stride: int = 1, padding: int = 0
) -> Float[Tensor, "h2 w2 d n"]:
    """The 2D convolution of `n` images whose index lies innermost in memory.

    It is `conv2d` for images of a few cells, such as windows of displacements, of which there are thousands. A row of
    the result is one product: the rows of the image below the kernel, cells and channels together, times the kernel
    written out as a band over the cells of a row. The products of zeros in the band cost less than what libraries lose
    on images as small as these, and no patches are unfolded, forward or backward.

    Args:
        x: Images: rows, columns, channels, image.
        weight: Kernels, square.
        stride: In both directions.
        padding: Zeros on each side, fewer than the kernel's cells.

    Returns:
        The convolved images in the same order of axes, in the type of autocast where that is on.

    Raises:
        TypeError: Not floating-point tensors of one type.
        ValueError: Another rank, channels that differ, a kernel that is not square, no stride, or a kernel larger than
            the padded image.

    Example:
        >>> images = torch.randn(9, 9, 4, 100)
        >>> weight = torch.randn(16, 4, 3, 3)
        >>> y = window_convolution(images, weight, stride=2, padding=1)
        >>> y.shape
        torch.Size([5, 5, 16, 100])
        >>> usual = torch.nn.functional.conv2d(images.permute(3, 2, 0, 1), weight, stride=2, padding=1)
        >>> torch.allclose(y.permute(3, 2, 0, 1), usual, atol=1e-4)
        True
    """
    _check(x, weight, stride, padding)
    if torch.is_autocast_enabled(x.device.type):
        x, weight = (z.to(torch.get_autocast_dtype(x.device.type)) for z in (x, weight))
    elif x.dtype != weight.dtype:
        raise TypeError(f"x is {x.dtype} and weight is {weight.dtype}: one type is needed")
    columns, side = x.shape[1], weight.shape[2]
    width = convolved_size(columns, side, stride, padding)
    first = torch.arange(width, device=x.device) * stride - padding
    tap = torch.arange(columns, device=x.device) - first.unsqueeze(1)  # w2 w: where in the kernel a cell lies
    below = (tap.unsqueeze(2) == torch.arange(side, device=x.device)).to(weight.dtype)  # w2 w k
    band = torch.einsum("dcrq,jxq->jdrxc", weight, below).flatten(3).flatten(0, 1)  # (w2 d) k (w c)
    out = torch.ops.saccade.window_convolution(x.flatten(1, 2), band.to(x.dtype), stride, padding)
    return out.unflatten(1, (width, weight.shape[0]))


def convolved_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Cells in a row after a convolution; below 1 where the kernel does not fit.

    Args:
        size: Cells before.
        kernel: Its cells.
        stride: From one place of the kernel to the next.
        padding: Zeros on each side.

    Returns:
        Cells after.

    Example:
        >>> convolved_size(9, 3, 2, 1)
        5
    """
    return (size + 2 * padding - kernel) // stride + 1


def _check(x: Tensor, weight: Tensor, stride: int, padding: int) -> None:
    for name, z in (("x", x), ("weight", weight)):
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"{name} has to be a floating-point tensor, not {getattr(z, 'dtype', type(z))}")
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        shapes = f"{tuple(x.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"x has to be (h, w, c, n) and weight (d, c, k, k), not {shapes}")
    if x.shape[2] != weight.shape[1]:
        raise ValueError(f"x has {x.shape[2]} channels, and the kernels take {weight.shape[1]}")
    if stride < 1 or not 0 <= padding < weight.shape[2]:
        raise ValueError(f"stride >= 1 and padding from 0 to {weight.shape[2] - 1} are needed, not {stride}, {padding}")
    if min(convolved_size(size, weight.shape[2], stride, padding) for size in x.shape[:2]) < 1:
        raise ValueError(f"a kernel of {weight.shape[2]} does not fit images of {x.shape[0]} x {x.shape[1]}")


def _span(row: int, rows: int, side: int, stride: int, padding: int) -> tuple[slice, slice]:
    """The rows of the image below the kernel for a row of the result, and the rows of the kernel above them."""
    first = row * stride - padding
    low, high = max(first, 0), min(first + side, rows)
    return slice(low, high), slice(low - first, high - first)


@torch.library.custom_op(
    "saccade::window_convolution", mutates_args=(), schema="(Tensor x, Tensor band, int stride, int padding) -> Tensor"
)
def _convolve(x, band, stride, padding):  # type: ignore[no-untyped-def]
    rows, _, n = x.shape
    x, band = x.contiguous(), band.contiguous()
    out = x.new_empty(convolved_size(rows, band.shape[1], stride, padding), band.shape[0], n)
    with torch.autocast(x.device.type, enabled=False):
        for i in range(out.shape[0]):
            seen, taps = _span(i, rows, band.shape[1], stride, padding)
            torch.mm(band[:, taps].flatten(1), x[seen].flatten(0, 1), out=out[i])
    return out


@_convolve.register_fake
def _(x, band, stride, padding):  # type: ignore[no-untyped-def]
    return x.new_empty(convolved_size(x.shape[0], band.shape[1], stride, padding), band.shape[0], x.shape[2])


@torch.library.custom_op(
    "saccade::window_convolution_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor band, int stride, int padding) -> (Tensor, Tensor)",
)
def _convolve_backward(grad, x, band, stride, padding):  # type: ignore[no-untyped-def]
    x, band, grad = x.contiguous(), band.contiguous(), grad.contiguous()
    grad_x, grad_band = torch.zeros_like(x), torch.zeros_like(band)
    with torch.autocast(x.device.type, enabled=False):
        for i in range(grad.shape[0]):
            seen, taps = _span(i, x.shape[0], band.shape[1], stride, padding)
            kernel = band[:, taps].flatten(1)
            grad_x[seen].view(kernel.shape[1], -1).addmm_(kernel.mT, grad[i])
            grad_band[:, taps].view(kernel.shape).addmm_(grad[i], x[seen].flatten(0, 1).mT)
    return grad_x, grad_band


@_convolve_backward.register_fake
def _(grad, x, band, stride, padding):  # type: ignore[no-untyped-def]
    return tuple(torch.empty_like(z, memory_format=torch.contiguous_format) for z in (x, band))


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    x, band, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, band)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    grads = torch.ops.saccade.window_convolution_backward(grad, *ctx.saved_tensors, ctx.stride, ctx.padding)
    return *grads, None, None


_convolve.register_autograd(_differentiate, setup_context=_save)
