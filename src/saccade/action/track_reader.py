"""The small network of Motionformer's claim: one attention block on the tokens of the track world, one query a clip."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.nn.space_time_attention import JointSpaceTimeAttention, TrajectoryAttention
from saccade.ops.frame_attention import frame_attention

HIDDEN = {"joint": 176, "divided": 112, "trajectory": 128}
"""Width of the last MLP by attention, so that all three have about 22,000 parameters."""


class TrackReader(nn.Module):
    """Classify the marked object of clips of tokens by one block of joint, divided or trajectory attention.

    There is no class token: the answer is read from the marked token, so that one query a clip is computed. Divided
    attention looks over time at each cell of the first frame, and then over the cells of the first frame.

    Args:
        attention: Which.
        channels: Of a token.
        cells: Of a frame.
        frames: In a clip.
        classes: To tell apart.
        dim: Width.
        heads: Of the attention.

    Example:
        >>> TrackReader("trajectory")(torch.randn(2, 150, 17), torch.tensor([3, 24])).shape
        torch.Size([2, 6])
    """

    def __init__(
        self,
        attention: Literal["joint", "divided", "trajectory"],
        channels: int = 17,
        cells: int = 25,
        frames: int = 6,
        classes: int = 6,
        dim: int = 32,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.kind, self.frames = attention, frames
        self.embed = nn.Linear(channels, dim)
        self.space = nn.Parameter(0.5 * torch.randn(cells, dim))
        self.time = nn.Parameter(0.5 * torch.randn(frames, 1, dim))
        self.before = _mlp(dim, 64)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = (TrajectoryAttention if attention == "trajectory" else JointSpaceTimeAttention)(dim, heads)
        if attention == "divided":
            self.norm3, self.timeattn = nn.LayerNorm(dim), JointSpaceTimeAttention(dim, heads)
        self.mlp = _mlp(dim, HIDDEN[attention])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Float[Tensor, "b n c"], query: Int[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """Args: `tokens`, frame-major; `query`, the marked cell of frame 0. Returns: logits."""
        x = self._embed(tokens)
        rows = torch.arange(len(x), device=x.device)
        if self.kind == "divided":
            q, k, v = self._over_time(x)
            found = self.timeattn.attend(q, k, v).transpose(1, 2).flatten(1)
            x = x.unflatten(1, (self.frames, -1))[:, 0]  # the first frame
            x = x + self.timeattn.proj(found).unflatten(0, (len(x), -1))
        q, k, v = self._asked(x, query)
        if isinstance(self.attn, TrajectoryAttention):
            y = frame_attention(q, k, v, self.frames).permute(0, 3, 2, 1, 4).flatten(3)  # b t 1 d
            found = self.attn.along(y, range(1))[0][:, 0]
        else:
            found = self.attn.attend(q, k, v).flatten(1)
        seen = x[rows, query] + self.attn.proj(found)
        seen = seen + self.mlp(seen)
        return self.head(self.norm(seen))

    def looks_at(self, tokens: Float[Tensor, "b n c"], query: Int[Tensor, " b"]) -> Float[Tensor, "b t p"]:
        """Where the marked token looks, the mean over heads.

        Args:
            tokens: Frame-major.
            query: The marked cell of frame 0.

        Returns:
            Attention by frame and cell. It sums to 1 in each frame for trajectory attention, in the clip for joint
            attention, and for divided attention, whose first step is shown, over the frames of the one cell it sees.
        """
        x = self._embed(tokens)
        if self.kind == "divided":
            q, k, _ = self._over_time(x)
            weight = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1).mean((1, 2)).unflatten(0, (len(x), -1))  # b p t
            seen = torch.zeros_like(weight)
            rows = torch.arange(len(x), device=x.device)
            seen[rows, query] = weight[rows, query]
            return seen.mT
        q, k, _ = self._asked(x, query)
        logits = (q * q.shape[-1] ** -0.5 @ k.mT)[:, :, 0]  # b h n
        if self.kind == "joint":
            return logits.softmax(-1).mean(1).unflatten(1, (self.frames, -1))
        return logits.unflatten(2, (self.frames, -1)).softmax(-1).mean(1)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + (self.space + self.time).flatten(0, 1)
        return x + self.before(x)

    def _over_time(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the first frame's cells, and keys and values of those cells in all frames; cells in the batch."""
        cells = x.unflatten(1, (self.frames, -1)).transpose(1, 2).flatten(0, 1)
        q, k, v = self.timeattn.heads(self.norm3(cells))
        return q[:, :, :1], k, v

    def _asked(self, x: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The marked token's query, and all keys and values."""
        q, k, v = self.attn.heads(self.norm1(x))
        return q[torch.arange(len(x), device=x.device), :, query].unsqueeze(2), k, v


def _mlp(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
