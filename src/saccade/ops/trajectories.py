"""The temporal half of trajectory attention: each query attends to its own trajectory, one pooled token a frame.

The keys and values of this attention are projections of all trajectory tokens, `n * t` of them. They are linear, so
neither is needed: `q . (W_k y) = (W_k^T q) . y`, and `sum_f a_f (W_v y_f) = W_v (sum_f a_f y_f)`. For each head one
query is projected in the place of a key for each frame, and `W_v` comes after the sum.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def attend_along(
    y: Float[Tensor, "b t n d"],
    frames: range,
    num_heads: int,
    query_weight: Float[Tensor, "d d"],
    query_bias: Float[Tensor, " d"] | None,
    key_weight: Float[Tensor, "d d"],
    value_weight: Float[Tensor, "d d"] | None,
    value_bias: Float[Tensor, " d"] | None = None,
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b h n t"]]:
    """Attend along trajectories: a query from the own-frame token, keys and values from the tokens of all frames.

    The way back is written by hand: with fewer heads than frames the projected queries are kept for it, with more,
    where they are larger than the trajectory tokens, they are computed again.

    Args:
        y: Trajectory tokens in each of `t` frames, for the queries of some of these frames.
        frames: The frames that the queries are in, in order, all with the same number of queries.
        num_heads: Heads; they divide `d`.
        query_weight: Projection of the own-frame token.
        query_bias: Its bias. The keys' bias would be the same in all frames and drop out of the softmax.
        key_weight: Projection to keys.
        value_weight: Projection to values; with `None` the values are the tokens themselves.
        value_bias: Its bias.

    Returns:
        What is found for each query, and how much of it comes from each frame.

    Raises:
        ValueError: Queries that are no multiple of the frames, or frames that are not among those of `y`.

    Note:
        Source: arXiv:2106.05392, equations 4 to 6. It can be differentiated once; where it is traced by
        `torch.compile` or `torch.export`, the way back is theirs.

    Example:
        >>> y, weights = torch.randn(2, 4, 18, 24), torch.randn(3, 24, 24)
        >>> out, attention = attend_along(y, range(1, 3), 3, weights[0], None, weights[1], weights[2])
        >>> out.shape, attention.shape
        (torch.Size([2, 18, 24]), torch.Size([2, 3, 18, 4]))
    """
    if not frames or y.shape[2] % len(frames) or not 0 <= frames[0] <= frames[-1] < y.shape[1]:
        raise ValueError(f"{y.shape[2]} queries of {frames}; the trajectories have {y.shape[1]} frames")
    given = (query_weight, query_bias, key_weight, value_weight, value_bias)
    weights: list[Any] = [None if weight is None else weight.to(y.dtype) for weight in given]
    attend = _attend if torch.compiler.is_compiling() else _AttendAlong.apply
    out, attention, *_ = attend(y, frames, num_heads, *weights)
    return out, attention


def _attend(
    y: Tensor,
    frames: range,
    heads: int,
    query_weight: Tensor,
    query_bias: Tensor | None,
    key_weight: Tensor,
    value_weight: Tensor | None,
    value_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What is found and the attention; then what the way back needs: queries, their projection, pooled tokens."""
    batch, count = y.shape[0], y.shape[2]
    tokens = _by_query(y)
    query = F.linear(_own(y, frames), query_weight, query_bias) * (y.shape[-1] // heads) ** -0.5
    query = query.unflatten(-1, (heads, -1)).transpose(0, 1)  # h b*n d/h
    seen = torch.bmm(query, _by_head(key_weight, heads))  # h b*n d
    exact = torch.float32 if y.dtype in (torch.float16, torch.bfloat16) else y.dtype
    attention = torch.bmm(seen.transpose(0, 1), tokens.mT).softmax(-1, dtype=exact)  # b*n h t
    pooled = torch.bmm(attention.to(y.dtype), tokens)  # b*n h d
    if value_weight is None:
        out = pooled.unflatten(-1, (heads, -1)).diagonal(dim1=1, dim2=2).mT.flatten(1)
    else:
        out = torch.bmm(pooled.transpose(0, 1), _by_head(value_weight, heads).mT).transpose(0, 1).flatten(1)
        if value_bias is not None:
            out = out + value_bias
    attention = attention.unflatten(0, (batch, count)).transpose(1, 2)
    return out.unflatten(0, (batch, count)), attention, query, seen, pooled


def _by_query(y: Tensor) -> Tensor:
    """Trajectories (b*n, t, d)."""
    return y.transpose(1, 2).flatten(0, 1)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """A projection by head (h, d/h, d)."""
    return weight.unflatten(0, (heads, -1))


def _own(y: Tensor, frames: range) -> Tensor:
    """The tokens (b*n, d) of the queries' own frames."""
    cells = y.shape[2] // len(frames)
    return torch.cat([y[:, f, i * cells : (i + 1) * cells] for i, f in enumerate(frames)], dim=1).flatten(0, 1)


class _AttendAlong(torch.autograd.Function):
    """The temporal attention with its way back, which fills one gradient of the trajectories in place."""

    @staticmethod
    def forward(y: Tensor, frames: range, heads: int, *weights: Any) -> tuple[Tensor, ...]:
        with torch.autocast(y.device.type, enabled=False):
            return _attend(y, frames, heads, *weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        y, ctx.frames, ctx.heads, *weights = inputs
        _, attention, query, seen, pooled = output
        ctx.mark_non_differentiable(query, seen, pooled)
        ctx.set_materialize_grads(False)
        kept = (seen, pooled) if ctx.heads <= y.shape[1] else (None, None)
        ctx.save_for_backward(y, attention, *weights, query, *kept)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_out: Tensor | None, grad_attention: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        y = ctx.saved_tensors[0]
        if grad_out is None:
            grad_out = torch.zeros_like(y[:, 0])
        with torch.autocast(y.device.type, enabled=False):
            return _way_back(ctx.frames, ctx.heads, ctx.needs_input_grad, grad_out, grad_attention, *ctx.saved_tensors)


def _way_back(
    frames: range,
    heads: int,
    needed: tuple[bool, ...],
    grad_out: Tensor,
    grad_attention: Tensor | None,
    y: Tensor,
    attention: Tensor,
    query_weight: Tensor,
    query_bias: Tensor | None,
    key_weight: Tensor,
    value_weight: Tensor | None,
    value_bias: Tensor | None,
    query: Tensor,
    seen: Tensor | None,
    pooled: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients of all that `attend_along` takes."""
    tokens, attention = _by_query(y), _by_query(attention)
    weight = attention.to(y.dtype)
    by_head = grad_out.flatten(0, 1).unflatten(-1, (heads, -1))  # b*n h d/h
    d_value_weight = d_value_bias = None
    if value_weight is None:
        d_pooled = torch.diag_embed(by_head.mT, dim1=1, dim2=2).flatten(2)  # b*n h d
    else:
        if needed[6]:
            pooled = torch.bmm(weight, tokens) if pooled is None else pooled
            d_value_weight = torch.bmm(by_head.permute(1, 2, 0), pooled.transpose(0, 1)).flatten(0, 1)
        d_value_bias = by_head.sum(0).flatten() if value_bias is not None and needed[7] else None
        del pooled
        d_pooled = torch.bmm(by_head.transpose(0, 1), _by_head(value_weight, heads)).transpose(0, 1)
    d_attention = torch.bmm(d_pooled, tokens.mT).to(attention.dtype)
    if grad_attention is not None:
        d_attention += _by_query(grad_attention)
    d_logits = attention * (d_attention - (attention * d_attention).sum(-1, keepdim=True))
    d_logits = d_logits.to(y.dtype)
    d_tokens = torch.bmm(weight.mT, d_pooled)
    del d_pooled
    seen = torch.bmm(query, _by_head(key_weight, heads)) if seen is None else seen
    d_tokens.baddbmm_(d_logits.mT, seen.transpose(0, 1))
    del seen
    d_seen = torch.bmm(d_logits, tokens).transpose(0, 1)  # h b*n d
    d_key_weight = torch.bmm(query.mT, d_seen).flatten(0, 1) if needed[5] else None
    d_query = torch.bmm(d_seen, _by_head(key_weight, heads).mT).transpose(0, 1).flatten(1)
    del d_seen
    d_query *= (query_weight.shape[0] // heads) ** -0.5
    d_query_weight = d_query.mT @ _own(y, frames) if needed[3] else None
    d_query_bias = d_query.sum(0) if query_bias is not None and needed[4] else None
    d_y = d_tokens.unflatten(0, (y.shape[0], y.shape[2])).transpose(1, 2)
    cells = y.shape[2] // len(frames)
    for f, d_own in zip(frames, (d_query @ query_weight).unflatten(0, (y.shape[0], -1)).split(cells, 1), strict=True):
        i = f - frames[0]
        d_y[:, f, i * cells : (i + 1) * cells] += d_own
    return d_y, None, None, d_query_weight, d_query_bias, d_key_weight, d_value_weight, d_value_bias
