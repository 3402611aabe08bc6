"""Self-attention over the tokens of a clip: joint, divided, and along trajectories.

Tokens are (b, 1 + t * p, d): a class token first, then the frames one after the other, `p` cells each. The modules are
interchangeable: each is called as `attention(x, num_frames)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from saccade.ops.features import orthogonal_gaussian
from saccade.ops.frame_attention import (
    frame_attention,
    nystrom_attention,
    orthoformer_attention,
    performer_attention,
)
from saccade.ops.trajectories import attend_along

APPROXIMATIONS = ("orthoformer", "nystrom", "performer")

PIECE = {"cpu": (2**21, 768), "cuda": (2**25, 2048)}
"""How much is worked on at a time: so many numbers of trajectory tokens, in whole clips; of a clip that has more, the
frames that have so many queries. That fits the cache of a CPU and fills a GPU, and lets fused kernels use large blocks.
"""


class JointSpaceTimeAttention(nn.Module):
    """Plain multi-head attention over all tokens of a clip.

    Args:
        dim: Width of a token.
        num_heads: Heads; they divide `dim`.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop: Share of the attention that is dropped in training.
        proj_drop: Dropout of the output.

    Raises:
        ValueError: Heads that do not divide `dim`, or a dropout outside [0, 1).

    Example:
        >>> JointSpaceTimeAttention(24, num_heads=3)(torch.randn(2, 1 + 4 * 9, 24), num_frames=4).shape
        torch.Size([2, 37, 24])
    """

    def __init__(
        self, dim: int, num_heads: int = 12, qkv_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(f"dim has to be a multiple of num_heads, not {dim} with {num_heads} heads")
        for name, value in (("attn_drop", attn_drop), ("proj_drop", proj_drop)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} has to be in [0, 1), not {value}")
        self.dim, self.num_heads, self.attn_drop = dim, num_heads, attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "b n d"], num_frames: int) -> Float[Tensor, "b n d"]:
        """Args: `x`, class token and frames; `num_frames`, frames in a clip. Returns: the same shape."""
        check_tokens(x, num_frames, self.dim)
        return self.proj_drop(self.proj(self.attend(*self.heads(x)).transpose(1, 2).flatten(2)))

    def heads(self, x: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head, each (b, heads, n, d / heads)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scaled dot-product attention with this module's dropout."""
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop if self.training else 0.0)


class DividedAttention(JointSpaceTimeAttention):
    """Attention of each cell over time, or of each frame over space; the class token sees all and is seen by all.

    Args:
        dim: Width of a token.
        axis: `time` (the same cell in all frames) or `space` (all cells of one frame).
        num_heads: Heads; they divide `dim`.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop: Share of the attention that is dropped in training.
        proj_drop: Dropout of the output.

    Raises:
        ValueError: Another axis, heads that do not divide `dim`, or a dropout outside [0, 1).

    Note:
        Source: arXiv:2102.05095, section 3, in the form of arXiv:2106.05392's code.

    Example:
        >>> DividedAttention(24, "time", num_heads=3)(torch.randn(2, 1 + 4 * 9, 24), num_frames=4).shape
        torch.Size([2, 37, 24])
    """

    def __init__(
        self,
        dim: int,
        axis: Literal["time", "space"],
        num_heads: int = 12,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        if axis not in ("time", "space"):
            raise ValueError(f"axis is 'time' or 'space', not {axis!r}")
        self.axis = axis

    def forward(self, x: Float[Tensor, "b n d"], num_frames: int) -> Float[Tensor, "b n d"]:
        """Args: `x`, class token and frames; `num_frames`, frames in a clip. Returns: the same shape."""
        cells = check_tokens(x, num_frames, self.dim)
        q, k, v = self.heads(x)
        first = self.attend(q[:, :, :1], k, v)
        groups = num_frames if self.axis == "space" else cells

        def grouped(y: Tensor, with_class: bool) -> Tensor:
            tokens = y[:, :, 1:].unflatten(2, (num_frames, cells))  # b h t p d
            tokens = tokens.transpose(2, 3) if self.axis == "time" else tokens
            if with_class:
                tokens = torch.cat([y[:, :, None, :1].expand(-1, -1, groups, -1, -1), tokens], dim=3)
            return tokens.transpose(1, 2).flatten(0, 1)  # b*groups h members d

        rest = self.attend(grouped(q, False), grouped(k, True), grouped(v, True))
        rest = rest.unflatten(0, (-1, groups)).transpose(1, 2)  # b h groups members d
        rest = (rest.transpose(2, 3) if self.axis == "time" else rest).flatten(2, 3)
        return self.proj_drop(self.proj(torch.cat([first, rest], dim=2).transpose(1, 2).flatten(2)))


class TrajectoryAttention(JointSpaceTimeAttention):
    """Attention that follows things: pool each frame for a query, then attend along these pooled tokens over time.

    1. *Space.* Each query has one softmax for each frame, and so finds where its thing is there; the pooled values are
       its trajectory tokens `y[q, f]`.
    2. *Time.* The query's own-frame token is projected to a new query, all its trajectory tokens to keys and values,
       and it attends to them, one token a frame.

    The class token attends to everything, as in an image transformer; the others never see it.

    This is exact and makes neither the tensor of all queries by all keys nor the projected keys and values of every
    trajectory token ([`attend_along`][saccade.ops.trajectories.attend_along]). A few clips are worked on at a time, and
    of a large one a few frames of queries.

    Args:
        dim: Width of a token.
        num_heads: Heads; they divide `dim`.
        qkv_bias: Whether queries, keys and values have a bias, of both attentions.
        attn_drop: Share of the spatial attention that is dropped in training.
        proj_drop: Dropout of the output.
        value_projection: Project the trajectory tokens to the values of the temporal attention, as the paper has it.
            The authors' checkpoints were trained without (`False`).
        approximation: `None` for the exact spatial attention; `orthoformer`, `nystrom` or `performer`.
        num_landmarks: Prototypes, landmarks or random features of the approximation.

    Raises:
        ValueError: Heads that do not divide `dim`, a dropout outside [0, 1), an unknown approximation, no landmarks.

    Note:
        Source: arXiv:2106.05392, section 3.1, equations 3 to 6. In eval mode the first prototype of Orthoformer is
        token 0, in training it is drawn from torch's global generator.

    Example:
        >>> attention = TrajectoryAttention(24, num_heads=3)
        >>> out, temporal = attention(torch.randn(2, 1 + 4 * 9, 24), num_frames=4, return_attention=True)
        >>> out.shape, temporal.shape
        (torch.Size([2, 37, 24]), torch.Size([2, 3, 36, 4]))
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 12,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        value_projection: bool = True,
        approximation: Literal["orthoformer", "nystrom", "performer"] | None = None,
        num_landmarks: int = 128,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        if approximation is not None and approximation not in APPROXIMATIONS:
            raise ValueError(f"approximation is None or one of {', '.join(APPROXIMATIONS)}, not {approximation!r}")
        if num_landmarks < 1:
            raise ValueError(f"num_landmarks has to be at least 1, not {num_landmarks}")
        self.value_projection, self.approximation, self.num_landmarks = value_projection, approximation, num_landmarks
        self.proj_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        if qkv_bias and not value_projection:
            self.proj_kv.bias.requires_grad_(False)  # the keys' half drops out of the softmax, the other is not used
        if approximation == "performer":
            self.projection: Tensor
            self.register_buffer("projection", orthogonal_gaussian(num_landmarks, dim // num_heads))

    def redraw_projection(self, generator: Generator | None = None) -> None:
        """Draw the Performer's random features anew.

        Args:
            generator: On the CPU; torch's own where `None`.

        Raises:
            ValueError: Another approximation, which has none.
        """
        if self.approximation != "performer":
            raise ValueError(f"only 'performer' has random features, not approximation={self.approximation!r}")
        drawn = orthogonal_gaussian(self.num_landmarks, self.dim // self.num_heads, generator)
        self.projection.copy_(drawn)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b n d"], num_frames: int, return_attention: bool = False
    ) -> Float[Tensor, "b n d"] | tuple[Float[Tensor, "b n d"], Float[Tensor, "b h m t"]]:
        """Attend along trajectories.

        Args:
            x: Class token and frames.
            num_frames: Frames in a clip.
            return_attention: Give the temporal attention too.

        Returns:
            The same shape; with `return_attention` also how much each token but the first draws on each frame.

        Raises:
            ValueError: Another width, tokens that are not whole frames, or more landmarks than tokens.
        """
        cells = check_tokens(x, num_frames, self.dim)
        q, k, v = self.heads(x)
        count = num_frames * cells
        first, q = q.split([1, count], dim=2)
        first = self.attend(first, k, v).transpose(1, 2).flatten(2)
        k, v = k[:, :, 1:], v[:, :, 1:]
        numbers, queries = PIECE.get(x.device.type, PIECE["cuda"])
        tokens = num_frames * count * self.dim  # of the trajectories of a clip
        each = num_frames if tokens <= numbers else -(-queries // cells)
        groups = [[first, q, k, v]]
        if not torch.compiler.is_compiling():  # a graph takes any number of clips
            groups = [list(some) for some in zip(*(z.split(max(1, numbers // tokens)) for z in groups[0]), strict=True)]
        outs, attentions = [], []
        for lead, *some in groups:
            pieces = self._pool(some, num_frames, each * cells)
            starts = range(0, num_frames, each)
            found = [
                self.along(y, range(start, min(start + each, num_frames)))
                for start, y in zip(starts, pieces, strict=True)
            ]
            outs.append(torch.cat([lead, *(out for out, _ in found)], dim=1))
            attentions.append(torch.cat([attention for _, attention in found], dim=2))
        out = self.proj_drop(self.proj(outs[0] if len(outs) == 1 else torch.cat(outs)))
        return (out, torch.cat(attentions)) if return_attention else out

    def along(self, y: Float[Tensor, "b t n d"], frames: range) -> tuple[Float[Tensor, "b n d"], Tensor]:
        """The temporal half: attend along trajectories.

        Args:
            y: Trajectory tokens in each frame, for the queries of some frames.
            frames: The frames that the queries are in, all with the same number of cells.

        Returns:
            What is found for each query, before the last projection; and the attention (b, heads, n, t).
        """
        key_weight, value_weight = self.proj_kv.weight.chunk(2)
        return attend_along(
            y,
            frames,
            self.num_heads,
            self.proj_q.weight,
            self.proj_q.bias,
            key_weight,
            value_weight if self.value_projection else None,
            self.proj_kv.bias[self.dim :] if self.value_projection and self.proj_kv.bias is not None else None,
        )

    def _pool(self, clips: list[Tensor], num_frames: int, queries: int) -> Iterator[Tensor]:
        """Trajectory tokens (b, t, n, d) from queries, keys and values, of so many queries at a time."""
        q, k, v = clips
        if self.approximation is not None:
            yield from self._approximate(q, k, v, num_frames).split(queries, dim=2)
            return
        dropout = self.attn_drop if self.training else 0.0
        for piece in q.split(queries, dim=2):
            yield frame_attention(piece, k, v, num_frames, dropout).permute(0, 3, 2, 1, 4).flatten(3)

    def _approximate(self, q: Tensor, k: Tensor, v: Tensor, num_frames: int) -> Tensor:
        """Trajectory tokens (b, t, n, d) by landmarks or random features, in float32 at least."""
        batch, dtype = q.shape[0], q.dtype
        with torch.autocast(q.device.type, enabled=False):
            exact = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
            q, k, v = (x.flatten(0, 1).to(exact) for x in (q, k, v))
            if self.approximation == "orthoformer":
                start = torch.randint(q.shape[1], (q.shape[0],), device=q.device) if self.training else None
                y = orthoformer_attention(q, k, v, num_frames, self.num_landmarks, first_index=start)
            elif self.approximation == "nystrom":
                y = nystrom_attention(q, k, v, num_frames, self.num_landmarks)
            else:
                y = performer_attention(q, k, v, num_frames, self.projection)
        return y.to(dtype).unflatten(0, (batch, -1)).permute(0, 3, 2, 1, 4).flatten(3)


def check_tokens(x: Tensor, num_frames: int, dim: int) -> int:
    """Raise unless `x` is a class token and whole frames of the right width.

    Args:
        x: Tokens.
        num_frames: Frames in a clip.
        dim: Width of a token.

    Returns:
        Cells of a frame.

    Raises:
        ValueError: Another rank or width, or tokens that are no multiple of `num_frames`.

    Example:
        >>> check_tokens(torch.zeros(1, 7, 4), num_frames=2, dim=4)
        3
    """
    if x.ndim != 3 or x.shape[2] != dim:
        raise ValueError(f"tokens have to be (b, 1 + frames * cells, {dim}), not {tuple(x.shape)}")
    count = x.shape[1] - 1
    if num_frames < 1 or count < num_frames or count % num_frames:
        raise ValueError(f"N = {count} tokens beside the class token are no multiple of num_frames = {num_frames}")
    return count // num_frames
