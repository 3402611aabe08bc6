"""Convolving very many small images at once, as matrix products that have the images for their long side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula


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
    x, band = _prepare(x, weight, stride, padding)
    out = torch.ops.saccade.window_convolution(x.flatten(1, 2), band, stride, padding)
    return out.unflatten(1, (-1, weight.shape[0]))


def normalized_window_convolution(
    x: Float[Tensor, "h w c n"],
    norm: nn.BatchNorm1d,
    weight: Float[Tensor, "d c k k"],
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "h2 w2 d n"]:
    """Batch norm, ReLU and [`window_convolution`][saccade.ops.window_convolution.window_convolution] in one.

    Of all that lies between two convolutions it keeps the input alone for the backward pass, which normalises again.

    Args:
        x: Images: rows, columns, channels, image.
        norm: Over the channels, with weight, bias and running statistics, which it updates in training.
        weight: Kernels, square.
        stride: In both directions.
        padding: Zeros on each side of the normalised images, fewer than the kernel's cells.

    Returns:
        The convolved images in the same order of axes.

    Raises:
        TypeError: As for `window_convolution`; or the norm is not plain.
        ValueError: As for `window_convolution`; a norm of other channels, or with a single value a channel in training.

    Example:
        >>> images, weight = torch.randn(5, 5, 4, 100), torch.randn(16, 4, 3, 3)
        >>> norm = nn.BatchNorm1d(4)
        >>> y = normalized_window_convolution(images, norm, weight)
        >>> plain = window_convolution(norm(images.flatten(0, 1)).relu().view(images.shape), weight)
        >>> torch.allclose(y, plain, atol=1e-4)
        True
    """
    if not is_plain(norm):
        raise TypeError(f"the norm has to be a BatchNorm1d with weight, bias and running statistics, not {norm}")
    x, band = _prepare(x, weight, stride, padding)
    channels, count = x.shape[2], x.shape[0] * x.shape[1] * x.shape[3]
    if norm.num_features != channels:
        raise ValueError(f"x has {channels} channels, and the norm {norm.num_features}")
    if norm.training and count < 2:
        raise ValueError("batch norm in training needs more than one value a channel")
    args = (norm.weight, norm.bias, norm.running_mean, norm.running_var, band, norm.training, norm.eps, stride, padding)
    out, mean, rstd = torch.ops.saccade.normalized_window_convolution(x.flatten(1, 2), *args)
    if norm.training:
        _update(norm, mean.detach(), rstd.detach(), count)
    return out.unflatten(1, (-1, weight.shape[0]))


def is_plain(norm: nn.Module) -> bool:
    """Whether a norm is a batch norm as `normalized_window_convolution` takes it.

    Args:
        norm: Any.

    Returns:
        Whether it is `nn.BatchNorm1d` itself, and not one that is synchronised between processes, say, with weight,
        bias and running statistics.

    Example:
        >>> is_plain(nn.BatchNorm1d(4)), is_plain(nn.SyncBatchNorm(4))
        (True, False)
    """
    return type(norm) is nn.BatchNorm1d and norm.affine and norm.track_running_stats


@torch.no_grad()
def _update(norm: nn.BatchNorm1d, mean: Tensor, rstd: Tensor, count: int) -> None:
    """Move the running statistics as `nn.BatchNorm1d` does."""
    seen = norm.get_buffer("num_batches_tracked").add_(1)
    share = 1 / seen.to(mean.dtype) if norm.momentum is None else norm.momentum
    var = (rstd.square().reciprocal() - norm.eps) * (count / (count - 1))
    for name, value in (("running_mean", mean), ("running_var", var)):
        buffer = norm.get_buffer(name)
        buffer.add_(share * (value.to(buffer.dtype) - buffer))


def _prepare(x: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """The images, and the kernels as a band (w2 d, k, w c) over the cells of a row."""
    _check(x, weight, stride, padding)
    if torch.is_autocast_enabled(x.device.type):
        x, weight = (z.to(torch.get_autocast_dtype(x.device.type)) for z in (x, weight))
    elif x.dtype != weight.dtype:
        raise TypeError(f"x is {x.dtype} and weight is {weight.dtype}: one type is needed")
    columns, side = x.shape[1], weight.shape[2]
    first = torch.arange(convolved_size(columns, side, stride, padding), device=x.device) * stride - padding
    tap = torch.arange(columns, device=x.device) - first.unsqueeze(1)  # w2 w: where in the kernel a cell lies
    below = (tap.unsqueeze(2) == torch.arange(side, device=x.device)).to(weight.dtype)  # w2 w k
    band = torch.einsum("dcrq,jxq->jdrxc", weight, below).flatten(3).flatten(0, 1)
    return x, band.to(x.dtype)


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


def band_span(row: int, rows: int, side: int, stride: int, padding: int) -> tuple[slice, slice]:
    """The rows of the image below the kernel for a row of the result, and the rows of the kernel above them."""
    first = row * stride - padding
    low, high = max(first, 0), min(first + side, rows)
    return slice(low, high), slice(low - first, high - first)


def _products(x: Tensor, band: Tensor, stride: int, padding: int) -> Tensor:
    """Rows of the result, one product each."""
    rows, _, n = x.shape
    out = x.new_empty(convolved_size(rows, band.shape[1], stride, padding), band.shape[0], n)
    for i in range(out.shape[0]):
        seen, taps = band_span(i, rows, band.shape[1], stride, padding)
        torch.mm(band[:, taps].flatten(1), x[seen].flatten(0, 1), out=out[i])
    return out


def _gradients(grad: Tensor, x: Tensor, band: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Gradients of images and band."""
    grad, grad_x, grad_band = grad.contiguous(), torch.zeros_like(x), torch.zeros_like(band)
    for i in range(grad.shape[0]):
        seen, taps = band_span(i, x.shape[0], band.shape[1], stride, padding)
        kernel = band[:, taps].flatten(1)
        grad_x[seen].view(kernel.shape[1], -1).addmm_(kernel.mT, grad[i])
        grad_band[:, taps].view(kernel.shape).addmm_(grad[i], x[seen].flatten(0, 1).mT)
    return grad_x, grad_band


@torch.library.custom_op(
    "saccade::window_convolution", mutates_args=(), schema="(Tensor x, Tensor band, int stride, int padding) -> Tensor"
)
def _convolve(x, band, stride, padding):  # type: ignore[no-untyped-def]
    with torch.autocast(x.device.type, enabled=False):
        return _products(x.contiguous(), band.contiguous(), stride, padding)


@_convolve.register_fake
def _(x, band, stride, padding):  # type: ignore[no-untyped-def]
    return x.new_empty(convolved_size(x.shape[0], band.shape[1], stride, padding), band.shape[0], x.shape[2])


@torch.library.custom_op(
    "saccade::window_convolution_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor band, int stride, int padding) -> (Tensor, Tensor)",
)
def _convolve_backward(grad, x, band, stride, padding):  # type: ignore[no-untyped-def]
    with torch.autocast(x.device.type, enabled=False):
        return _gradients(grad, x.contiguous(), band.contiguous(), stride, padding)


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


def _normalize(x, weight, bias, mean, var, training, eps):  # type: ignore[no-untyped-def]
    """Images (h, w c, n) normalised and cut at 0, with mean and reciprocal deviation of the batch."""
    cells = x.contiguous().view(-1, weight.shape[0], x.shape[2])
    running = (None, None) if training else (mean, var)
    y, mean, rstd = torch.ops.aten.native_batch_norm(cells, weight, bias, *running, training, 0.0, eps)
    return y.relu_().view(x.shape), mean, rstd


@torch.library.custom_op(
    "saccade::normalized_window_convolution",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor weight, Tensor bias, Tensor running_mean, Tensor running_var, Tensor band, bool training, "
        "float eps, int stride, int padding) -> (Tensor, Tensor, Tensor)"
    ),
)
def _convolve_normalized(x, weight, bias, running_mean, running_var, band, training, eps, stride, padding):  # type: ignore[no-untyped-def]
    with torch.autocast(x.device.type, enabled=False):
        y, mean, rstd = _normalize(x, weight, bias, running_mean, running_var, training, eps)
        if not training:
            mean, rstd = running_mean.clone(), (running_var + eps).rsqrt()
        kept = (stat.to(running_mean.dtype) for stat in (mean, rstd))  # CUDA gives float32 for lower types
        return _products(y, band.contiguous(), stride, padding), *kept


@_convolve_normalized.register_fake
def _(x, weight, bias, running_mean, running_var, band, training, eps, stride, padding):  # type: ignore[no-untyped-def]
    rows = convolved_size(x.shape[0], band.shape[1], stride, padding)
    return (
        x.new_empty(rows, band.shape[0], x.shape[2]),
        torch.empty_like(running_mean),
        torch.empty_like(running_var),
    )


@torch.library.custom_op(
    "saccade::normalized_window_convolution_backward",
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor band, bool training, "
        "float eps, int stride, int padding) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _convolve_normalized_backward(grad, x, weight, bias, mean, rstd, band, training, eps, stride, padding):  # type: ignore[no-untyped-def]
    with torch.autocast(x.device.type, enabled=False):
        x = x.contiguous()
        var = rstd.square().reciprocal() - eps
        y, _, _ = _normalize(x, weight, bias, mean, var, False, eps)
        grad_y, grad_band = _gradients(grad, y, band.contiguous(), stride, padding)
        torch.ops.aten.threshold_backward.grad_input(grad_y, y, 0, grad_input=grad_y)
        del y
        cells = (-1, weight.shape[0], x.shape[2])
        half = x.is_cuda and mean.dtype in (torch.float16, torch.bfloat16)
        saved = (mean.float(), rstd.float()) if half else (mean, rstd)
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad_y.view(cells), x.view(cells), weight, mean, var, *saved, training, eps, [True, True, True]
        )
        return grad_x.view(x.shape), grad_weight, grad_bias, grad_band


@_convolve_normalized_backward.register_fake
def _(grad, x, weight, bias, mean, rstd, band, training, eps, stride, padding):  # type: ignore[no-untyped-def]
    return tuple(torch.empty_like(z, memory_format=torch.contiguous_format) for z in (x, weight, bias, band))


def _save_normalized(ctx, inputs, output):  # type: ignore[no-untyped-def]
    x, weight, bias, _, _, band, *ctx.rest = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:], band)


def _differentiate_normalized(ctx, grad, *_):  # type: ignore[no-untyped-def]
    x_grad, *norm, band = torch.ops.saccade.normalized_window_convolution_backward(grad, *ctx.saved_tensors, *ctx.rest)
    return x_grad, *norm, None, None, band, None, None, None, None


_convolve_normalized.register_autograd(_differentiate_normalized, setup_context=_save_normalized)


def _row_products(rows: int, band: Sequence[int], n: int, stride: int, padding: int) -> int:
    """Multiply-adds of all rows, as they run."""
    spans = (
        band_span(i, rows, band[1], stride, padding)[0] for i in range(convolved_size(rows, band[1], stride, padding))
    )
    return n * band[0] * band[2] * sum(seen.stop - seen.start for seen in spans)


@register_flop_formula(torch.ops.saccade.window_convolution)
def _convolve_flops(x: Sequence[int], band: Sequence[int], stride: int, padding: int, **_: Any) -> int:
    return 2 * _row_products(x[0], band, x[2], stride, padding)


@register_flop_formula(torch.ops.saccade.window_convolution_backward)
def _convolve_backward_flops(
    _: Sequence[int], x: Sequence[int], band: Sequence[int], stride: int, padding: int, **__: Any
) -> int:
    return 4 * _row_products(x[0], band, x[2], stride, padding)


@register_flop_formula(torch.ops.saccade.normalized_window_convolution)
def _normalized_flops(x: Sequence[int], *args: Any, **_: Any) -> int:
    return 2 * _row_products(x[0], args[4], x[2], *args[7:])


@register_flop_formula(torch.ops.saccade.normalized_window_convolution_backward)
def _normalized_backward_flops(_: Sequence[int], x: Sequence[int], *args: Any, **__: Any) -> int:
    return 4 * _row_products(x[0], args[4], x[2], *args[7:])
