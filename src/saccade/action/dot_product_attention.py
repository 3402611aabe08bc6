"""Attention that is computed from the clip and added to its features: what GTA uses in space, and rivals in time."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class AddedBranch(nn.Module):
    """What all branches share: a projection back to the channels, and a batch norm whose scale starts at 0."""

    def __init__(self, channels: int, inner: int, scale: float) -> None:
        super().__init__()
        self.proj = nn.Linear(inner, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        nn.init.constant_(self.norm.weight, scale)

    def added(self, tokens: Float[Tensor, "b t p d"]) -> Float[Tensor, "b t p c"]:
        """Project and normalise."""
        return self.norm(self.proj(tokens).flatten(0, 2)).unflatten(0, tokens.shape[:3])


class DotProductAttention(AddedBranch):
    """Attention over the places of each frame, over the frames of each place, or over both at once.

    Args:
        channels: Of the features.
        inner: Of queries, keys and values.
        over: `space`, `time` or `joint`.
        heads: Parts of the inner channels that attend on their own; logits are over the root of all inner channels.
        scale: At which the branch's batch norm starts.

    Example:
        >>> import torch
        >>> DotProductAttention(16, 8)(torch.randn(2, 4, 49, 16)).shape
        torch.Size([2, 4, 49, 16])
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        over: Literal["space", "time", "joint"] = "space",
        heads: int = 1,
        scale: float = 0.0,
    ) -> None:
        super().__init__(channels, inner, scale)
        self.over, self.heads = over, heads
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(channels, inner, bias=False)
        self.value = nn.Linear(channels, inner, bias=False)

    def forward(self, x: Float[Tensor, "b t p c"]) -> Float[Tensor, "b t p c"]:
        """Args: `x`, tokens. Returns: what is added to them."""
        batch, frames, places, _ = x.shape
        tokens = {
            "space": x.flatten(0, 1),
            "time": x.transpose(1, 2).flatten(0, 1),
            "joint": x.flatten(1, 2),
        }[self.over]
        q, k, v = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scale = self.proj.in_features**-0.5
        out = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)
        if self.over == "time":
            return self.added(out.view(batch, places, frames, -1).transpose(1, 2))
        return self.added(out.view(batch, frames, places, -1))
