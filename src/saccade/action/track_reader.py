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
        x = self.embed(tokens) + (self.space + self.time).flatten(0, 1)
        x = x + self.before(x)
        rows = torch.arange(len(x), device=x.device)
        if self.kind == "divided":
            cells = x.unflatten(1, (self.frames, -1)).transpose(1, 2)  # b p t d
            q, k, v = self.timeattn.heads(self.norm3(cells).flatten(0, 1))
            found = self.timeattn.attend(q[:, :, :1], k, v).transpose(1, 2).flatten(1)
            x = cells[:, :, 0] + self.timeattn.proj(found).unflatten(0, (len(x), -1))  # the first frame
        q, k, v = self.attn.heads(self.norm1(x))
        q = q[rows, :, query].unsqueeze(2)  # b h 1 w
        if isinstance(self.attn, TrajectoryAttention):
            y = frame_attention(q, k, v, self.frames).permute(0, 3, 2, 1, 4).flatten(3)  # b t 1 d
            found = self.attn.along(y, range(1))[0][:, 0]
        else:
            found = self.attn.attend(q, k, v).flatten(1)
        seen = x[rows, query] + self.attn.proj(found)
        seen = seen + self.mlp(seen)
        return self.head(self.norm(seen))


def _mlp(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
