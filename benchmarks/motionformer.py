"""Trajectory attention against the plain formulation with the logits of all queries by all keys, and over frames."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saccade.bench import Comparison
from saccade.nn.space_time_attention import TrajectoryAttention, check_tokens

SIDE = 14


class PlainTrajectoryAttention(TrajectoryAttention):
    """The same block and weights, written as the equations are: all logits, all temporal keys and values."""

    def forward(self, x: Tensor, num_frames: int, return_attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Attend along trajectories."""
        cells = check_tokens(x, num_frames, self.dim)
        scale = (self.dim // self.num_heads) ** -0.5
        q, k, v = self.heads(x)
        first = (scale * q[:, :, :1] @ k.mT).softmax(-1) @ v
        q, k, v = q[:, :, 1:], k[:, :, 1:], v[:, :, 1:]
        space = (scale * q @ k.mT).unflatten(-1, (num_frames, cells)).softmax(-1)
        y = torch.einsum("bhnfp,bhfpd->bnfhd", space, v.unflatten(2, (num_frames, cells))).flatten(3)
        own = y.unflatten(1, (num_frames, cells)).diagonal(dim1=1, dim2=3).movedim(-1, 1).flatten(1, 2)
        query = scale * self.proj_q(own).unflatten(-1, (self.num_heads, -1))
        key, value = self.proj_kv(y).chunk(2, -1)
        key, value = (z.unflatten(-1, (self.num_heads, -1)) for z in (key, value if self.value_projection else y))
        time = torch.einsum("bnhd,bnfhd->bhnf", query, key).softmax(-1)
        out = torch.einsum("bhnf,bnfhd->bnhd", time, value).flatten(2)
        out = self.proj(torch.cat([first.transpose(1, 2).flatten(2), out], dim=1))
        return (out, time) if return_attention else out


def sides(dim: int, heads: int, frames: int, clips: int = 1) -> tuple[TrajectoryAttention, TrajectoryAttention, Tensor]:
    """Ours, its plain twin with the same weights, and the tokens of some clips."""
    torch.manual_seed(0)
    ours, plain = TrajectoryAttention(dim, heads), PlainTrajectoryAttention(dim, heads)
    plain.load_state_dict(ours.state_dict())
    return ours, plain, torch.randn(clips, 1 + frames * SIDE**2, dim, requires_grad=True)


def comparison(
    dim: int, heads: int, frames: int, clips: int = 1, note: str = "", targets: tuple[float, float] = (2.0, 3.0)
) -> Comparison:
    """Forward and backward of some clips; `targets` of time and of memory."""
    ours, plain, x = sides(dim, heads, frames, clips)
    products = clips * (frames * SIDE**2) ** 2 * dim
    batch = f", {clips} clips" if clips > 1 else ""
    return Comparison(
        name=f"trajectory attention forward + backward, {frames} x {SIDE} x {SIDE} tokens, d={dim}{batch}{note}",
        ours=lambda: ours(x, frames).sum().backward(),
        peer=lambda: plain(x, frames).sum().backward(),
        peer_name="logits of all queries by all keys",
        target=targets[0],
        memory_target=targets[1],
        limit=f"operations: 7 products of {products / 1e9:.2f} G multiply-adds",
    )


def comparisons() -> Iterator[Comparison]:
    """Two widths at 8 token frames, one clip and four; then clips of 8 to 64 frames with tubelets of two."""
    for dim, heads in ((192, 3), (768, 12)):
        for clips in (1, 4):
            yield comparison(dim, heads, 8, clips)
    for frames in (8, 16, 32, 64):
        note = f" (a clip of {frames} frames)"
        yield comparison(192, 3, frames // 2, note=note, targets=(1.0, 2.0))  # the lead grows with length
