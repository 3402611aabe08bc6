"""Local correlation: how similar is each position of one map to a window of positions in another, or in a clip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

_FLOATS = "float16, bfloat16, float32 or float64"


def local_correlation(
    a: Float[Tensor, "b c h w"],
    b: Float[Tensor, "b c h w"],
    window: int = 15,
    dilation: int = 1,
    normalize: bool = False,
    eps: float = 1e-6,
) -> Float[Tensor, "b {window} {window} h w"]:
    """Inner products of each position of `a` with a square window of positions in `b`.

    `out[n, i, j, y, x] = sum_c a[n, c, y, x] * b[n, c, y + (i - r) * dilation, x + (j - r) * dilation]` with
    `r = (window - 1) / 2`, and 0 where that position lies outside `b`. Nothing is divided by the channels.

    One row of `a` against one padded row of `b` is a small matrix product whose diagonals are wanted; a displacement
    row costs one batched product over all rows and clips and one strided copy. Features are never unfolded: beyond
    the result the working memory is `b * h * w * (w + 2 r dilation)` entries, forward and backward.

    Args:
        a: Features to match, of any size.
        b: Features searched, of the same shape.
        window: Side of the window in displacements, odd.
        dilation: Step between neighbouring displacements, in positions.
        normalize: Divide both by their length over channels, `sqrt(sum_c x^2 + eps)`: cosine similarities.
        eps: Added below that root.

    Returns:
        Similarities; the first window axis is the vertical displacement.

    Raises:
        TypeError: The maps are not floating-point tensors of one type.
        ValueError: An even window, a dilation below 1, or shapes that differ.

    Note:
        Sources: arXiv:2007.09933, section 3.1 (MotionSqueeze); arXiv:2102.07092, section 3.1 (SELFY).

    Example:
        >>> a = torch.zeros(1, 1, 5, 5)
        >>> a[0, 0, 2, 2] = 1
        >>> moved = a.roll((1, -1), dims=(2, 3))  # one down, one to the left
        >>> local_correlation(a, moved, window=3)[0, :, :, 2, 2]
        tensor([[0., 0., 0.],
                [0., 0., 0.],
                [1., 0., 0.]])
    """
    _check(a, b, window, dilation)
    if normalize:
        a, b = l2_normalize(a, eps), l2_normalize(b, eps)
    return torch.ops.saccade.local_correlation(a, b, window, dilation)


def spatio_temporal_self_similarity(
    features: Float[Tensor, "b t c h w"],
    window: tuple[int, int, int] = (5, 9, 9),
    normalize: bool = True,
    eps: float = 1e-6,
) -> Float[Tensor, "b t h w {window[0]} {window[1]} {window[2]}"]:
    """Similarities of each position of a clip with a window of positions in the frames around its own (STSS).

    `out[n, t, y, x, l, u, v]` is the inner product of the features at `(t, y, x)` with those at
    `(t + l - L // 2, y + u - U // 2, x + v - U // 2)`, and 0 outside the clip or the map.

    It is [`local_correlation`][saccade.ops.correlation.local_correlation] for each temporal offset, forward and
    backward: features are unfolded neither in space nor in time, and nothing but the features is kept for the backward
    pass. In memory the axes lie as (u, v, b, l, t, h, w): similarities of one displacement are beside each other.

    Args:
        features: Of a clip, frame by frame.
        window: Temporal offsets L and displacements U and V, all odd, U equal to V. The window may be larger than the
            map, and reach beyond the clip.
        normalize: Divide features by their length over channels, `sqrt(sum_c x^2 + eps)`: cosine similarities.
        eps: Added below that root.

    Returns:
        Similarities.

    Raises:
        TypeError: Not a floating-point tensor.
        ValueError: Another rank, or a window that is not of odd sizes with U equal to V.

    Note:
        Source: arXiv:2102.07092, section 3.1 and equation 2.

    Example:
        >>> clip = torch.zeros(1, 3, 1, 5, 5)
        >>> clip[0, 0, 0, 2, 1] = clip[0, 1, 0, 2, 2] = clip[0, 2, 0, 2, 3] = 1  # a dot goes right
        >>> similarity = spatio_temporal_self_similarity(clip, (3, 3, 3), normalize=False)
        >>> similarity[0, 1, 2, 2, :, 1]  # from the dot in the middle frame: before, now, and after
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    if not isinstance(features, Tensor) or not features.is_floating_point():
        came = getattr(features, "dtype", type(features))
        raise TypeError(f"features have to be a floating-point tensor ({_FLOATS}), not {came}")
    if features.ndim != 5:
        raise ValueError(f"features have to be (b, t, c, h, w), not {tuple(features.shape)}")
    check_window(window)
    if normalize:
        features = l2_normalize(features.flatten(0, 1), eps).unflatten(0, features.shape[:2])
    similarity = torch.ops.saccade.self_similarity(features, window[0], window[1])
    return similarity.permute(2, 4, 5, 6, 3, 0, 1)


def check_window(window: tuple[int, int, int]) -> None:
    """Raise unless a window in time and space has a middle and is square.

    Args:
        window: Temporal offsets L and displacements U and V.

    Raises:
        ValueError: Not three sizes, an even or negative one, or U and V that differ.

    Example:
        >>> check_window((5, 9, 7))
        Traceback (most recent call last):
        ValueError: window has to be (L, U, V), all odd, with U == V, not (5, 9, 7)
    """
    if len(window) != 3 or min(window) < 1 or not all(size % 2 for size in window) or window[1] != window[2]:
        raise ValueError(f"window has to be (L, U, V), all odd, with U == V, not {tuple(window)}")


def l2_normalize(x: Float[Tensor, "b c h w"], eps: float = 1e-6) -> Float[Tensor, "b c h w"]:
    """Divide by the length over channels, `sqrt(sum_c x^2 + eps)`, so that a zero vector stays zero.

    Args:
        x: Features.
        eps: Added below the root.

    Returns:
        Features of about unit length.

    Example:
        >>> l2_normalize(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten()
        tensor([0.6000, 0.8000])
    """
    return x * (x.square().sum(1, keepdim=True) + eps).rsqrt()


def _check(a: Tensor, b: Tensor, window: int, dilation: int) -> None:
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"{name} has to be a floating-point tensor ({_FLOATS}), not {getattr(x, 'dtype', type(x))}")
    if a.dtype != b.dtype:
        raise TypeError(f"a is {a.dtype} and b is {b.dtype}: one type is needed")
    if a.ndim != 4 or a.shape != b.shape:
        raise ValueError(f"a and b need one shape (b, c, h, w), not {tuple(a.shape)} and {tuple(b.shape)}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window has to be odd, so that it has a middle, not {window}")
    if dilation < 1:
        raise ValueError(f"dilation has to be at least 1, not {dilation}")


def _rows(a: Tensor, b: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """`a` as (h, b, w, c) and the padded `b` as (h + 2 reach, b, c, w + 2 reach): a slice of rows is one batch."""
    return a.permute(2, 0, 3, 1).contiguous(), F.pad(b, (reach,) * 4).permute(2, 0, 1, 3).contiguous()


def _band(a: Tensor, window: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Zeros for the products of row pairs (h * b, w, w + 2 reach), and a view of the diagonals (b, window, h, w)."""
    n, _, h, w = a.shape
    wide = w + (window - 1) * dilation
    band = a.new_zeros(h * n, w, wide)
    return band, band.as_strided((n, window, h, w), (w * wide, dilation, n * w * wide, wide + 1))


def _products(a: Tensor, b: Tensor, window: int, dilation: int) -> Iterator[tuple[int, Tensor]]:
    """Number of a displacement row, and its similarities (b, window, h, w), which the next one overwrites."""
    n, c, h, w = a.shape
    reach = window // 2 * dilation
    rows, searched = _rows(a, b, reach)
    band, diagonals = _band(a, window, dilation)
    for i in range(window):
        target = searched[i * dilation : i * dilation + h].view(h * n, c, w + 2 * reach)
        torch.bmm(rows.view(h * n, w, c), target, out=band)
        yield i, diagonals


def _gradients(grad: Tensor, a: Tensor, b: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Gradients of both maps from that of the similarities (b, window, window, h, w)."""
    window = grad.shape[1]
    n, c, h, w = a.shape
    reach = window // 2 * dilation
    rows, searched = _rows(a, b, reach)
    band, diagonals = _band(a, window, dilation)
    grad_rows, grad_searched = torch.zeros_like(rows), torch.zeros_like(searched)
    for i in range(window):
        span = slice(i * dilation, i * dilation + h)
        diagonals.copy_(grad[:, i])  # what lies off the diagonals stays 0
        target = searched[span].view(h * n, c, w + 2 * reach)
        grad_rows.view(h * n, w, c).baddbmm_(band, target.transpose(1, 2))
        grad_searched[span].view(h * n, c, w + 2 * reach).baddbmm_(rows.view(h * n, w, c).transpose(1, 2), band)
    grad_a = grad_rows.permute(1, 3, 0, 2).contiguous()
    grad_b = grad_searched[reach : reach + h, :, :, reach : reach + w].permute(1, 2, 0, 3).contiguous()
    return grad_a, grad_b


@torch.library.custom_op(
    "saccade::local_correlation", mutates_args=(), schema="(Tensor a, Tensor b, int window, int dilation) -> Tensor"
)
def _correlate(a, b, window, dilation):  # type: ignore[no-untyped-def]
    n, _, h, w = a.shape
    out = a.new_empty(n, window, window, h, w)
    if out.numel() == 0:
        return out
    with torch.autocast(a.device.type, enabled=False):
        for i, similarities in _products(a, b, window, dilation):
            out[:, i] = similarities
    return out


@_correlate.register_fake
def _(a, b, window, dilation):  # type: ignore[no-untyped-def]
    n, _, h, w = a.shape
    return a.new_empty(n, window, window, h, w)


@torch.library.custom_op(
    "saccade::local_correlation_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor a, Tensor b, int dilation) -> (Tensor, Tensor)",
)
def _correlate_backward(grad, a, b, dilation):  # type: ignore[no-untyped-def]
    if grad.numel() == 0:
        return torch.zeros_like(a), torch.zeros_like(b)
    with torch.autocast(a.device.type, enabled=False):
        return _gradients(grad, a, b, dilation)


@_correlate_backward.register_fake
def _(grad, a, b, dilation):  # type: ignore[no-untyped-def]
    return torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(
        b, memory_format=torch.contiguous_format
    )


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    a, b, _, ctx.dilation = inputs
    ctx.save_for_backward(a, b)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    a, b = ctx.saved_tensors
    grad_a, grad_b = torch.ops.saccade.local_correlation_backward(grad, a, b, ctx.dilation)
    return grad_a, grad_b, None, None


_correlate.register_autograd(_differentiate, setup_context=_save)


def _pairs(frames: int, offsets: int) -> Iterator[tuple[int, slice, slice]]:
    """Each temporal offset within the clip: its number, the frames that look and those that are looked at."""
    for number in range(offsets):
        offset = number - offsets // 2
        if abs(offset) < frames:
            looking = slice(max(0, -offset), frames - max(0, offset))
            yield number, looking, slice(looking.start + offset, looking.stop + offset)


@torch.library.custom_op(
    "saccade::self_similarity", mutates_args=(), schema="(Tensor x, int offsets, int window) -> Tensor"
)
def _self_similarity(x, offsets, window):  # type: ignore[no-untyped-def]
    n, t, _, h, w = x.shape
    out = x.new_zeros(window, window, n, offsets, t, h, w)
    if out.numel() == 0:
        return out
    with torch.autocast(x.device.type, enabled=False):
        for number, now, then in _pairs(t, offsets):
            part = out[:, :, :, number, now]
            for i, similarities in _products(x[:, now].flatten(0, 1), x[:, then].flatten(0, 1), window, 1):
                part[i] = similarities.unflatten(0, (n, -1)).movedim(2, 0)
    return out


@_self_similarity.register_fake
def _(x, offsets, window):  # type: ignore[no-untyped-def]
    n, t, _, h, w = x.shape
    return x.new_empty(window, window, n, offsets, t, h, w)


@torch.library.custom_op(
    "saccade::self_similarity_backward", mutates_args=(), schema="(Tensor grad, Tensor x) -> Tensor"
)
def _self_similarity_backward(grad, x):  # type: ignore[no-untyped-def]
    out = torch.zeros_like(x, memory_format=torch.contiguous_format)
    if grad.numel() == 0:
        return out
    with torch.autocast(x.device.type, enabled=False):
        for number, now, then in _pairs(x.shape[1], grad.shape[3]):
            part = grad[:, :, :, number, now].movedim((2, 3), (0, 1)).flatten(0, 1)
            a, b = x[:, now].flatten(0, 1), x[:, then].flatten(0, 1)
            for span, g in zip((now, then), _gradients(part, a, b, 1), strict=True):
                out[:, span] += g.unflatten(0, (x.shape[0], -1))
    return out


@_self_similarity_backward.register_fake
def _(grad, x):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(inputs[0])


def _return(ctx, grad):  # type: ignore[no-untyped-def]
    (x,) = ctx.saved_tensors
    return torch.ops.saccade.self_similarity_backward(grad, x), None, None


_self_similarity.register_autograd(_return, setup_context=_keep)


@register_flop_formula([torch.ops.saccade.local_correlation, torch.ops.saccade.self_similarity])
def _products_flops(x_shape: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Of the definition: a product of all channels for each similarity."""
    return 2 * math.prod(out_shape) * x_shape[-3]


@register_flop_formula([torch.ops.saccade.local_correlation_backward, torch.ops.saccade.self_similarity_backward])
def _gradients_flops(grad_shape: Sequence[int], x_shape: Sequence[int], *_: Any, **__: Any) -> int:
    return 4 * math.prod(grad_shape) * x_shape[-3]
