"""The blocks of X3D networks (arXiv:2004.04730): widen, convolve every channel by itself, attend, narrow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.clip_convolutions import DepthwiseConv3d, PointwiseConv3d, SpatialConv3d, TemporalConv3d


def round_width(width: float, divisor: int = 8, least: int = 8) -> int:
    """The multiple of `divisor` nearest to a width, and the next one where that is below 0.9 of it.

    Args:
        width: Channels, not necessarily whole.
        divisor: What the result is a multiple of.
        least: The fewest channels.

    Returns:
        Channels.

    Example:
        >>> [round_width(width) for width in (3.4, 24, 27)]
        [8, 24, 32]
    """
    rounded = max(least, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


class SqueezeExcitation(nn.Module):
    """Scale every channel by what the mean over time and space says of all channels (arXiv:1709.01507).

    Args:
        channels: Of the input.
        hidden: Between the two layers; `None`: a sixteenth, in whole eights and at least 8.

    Example:
        >>> SqueezeExcitation(16)(torch.randn(1, 16, 2, 4, 4)).shape
        torch.Size([1, 16, 2, 4, 4])
    """

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or round_width(channels / 16)
        self.reduce = PointwiseConv3d(channels, hidden, bias=True)
        self.expand = PointwiseConv3d(hidden, channels, bias=True)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Scale the channels of `x`."""
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3, 4), keepdim=True)))))


class GlobalContext(nn.Module):
    """Add to every place what one attention over all places gathers (arXiv:1904.11492, in its light form).

    A convolution to one channel says how much each place of the clip counts; the weighted mean over time and space
    passes two layers and is added everywhere.

    Args:
        channels: Of the input.
        hidden: Between the two layers; `None`: a sixteenth, in whole eights and at least 8.

    Example:
        >>> GlobalContext(16)(torch.randn(1, 16, 2, 4, 4)).shape
        torch.Size([1, 16, 2, 4, 4])
    """

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or round_width(channels / 16)
        self.look = PointwiseConv3d(channels, 1)
        self.reduce = PointwiseConv3d(channels, hidden, bias=True)
        self.expand = PointwiseConv3d(hidden, channels, bias=True)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Add the context to `x`."""
        look = self.look(x).flatten(2).softmax(2)  # b 1 n
        context = (x.flatten(2) @ look.mT)[..., None, None]  # b c 1 1 1
        return x + self.expand(F.relu(self.reduce(context)))


ATTENTION: dict[str, type[nn.Module]] = {"se": SqueezeExcitation, "gc": GlobalContext}
"""Attention blocks by name; `none` is none."""


class X3DBlock(nn.Module):
    """Widen, convolve every channel by itself, narrow, and add the input.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        inner_channels: Of the depth-wise convolution.
        kernel: Of the depth-wise convolution, in time, height and width; odd.
        stride: In space; time is never strided.
        se: Whether squeeze-excitation follows the depth-wise convolution; or the name of what does: `none`, `se`, or
            `gc` for a global context.

    Raises:
        ValueError: A kernel that is not three odd sides, a stride or a width below 1, an unknown attention.

    Note:
        Source: arXiv:2004.04730, section 3; layers in the order of the authors' code.

    Example:
        >>> X3DBlock(8, 16, 36, stride=2)(torch.randn(1, 8, 3, 8, 8)).shape
        torch.Size([1, 16, 3, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        inner_channels: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        stride: int = 1,
        se: bool | str = True,
    ) -> None:
        super().__init__()
        if len(kernel) != 3 or any(side < 1 or side % 2 == 0 for side in kernel):
            raise ValueError(f"kernel has to be three odd sides, of time, height and width, not {kernel}")
        if min(in_channels, out_channels, inner_channels, stride) < 1:
            given = f"{in_channels}, {out_channels}, {inner_channels} and {stride}"
            raise ValueError(f"channels and stride have to be at least 1, not {given}")
        attention = ("se" if se else "none") if isinstance(se, bool) else se
        if attention not in ("none", *ATTENTION):
            raise ValueError(f"attention is one of none, {', '.join(ATTENTION)}, not {attention!r}")
        self.expand = PointwiseConv3d(in_channels, inner_channels)
        self.expand_norm: nn.Module = nn.BatchNorm3d(inner_channels)
        self.depthwise = DepthwiseConv3d(inner_channels, kernel, stride)
        self.depthwise_norm: nn.Module = nn.BatchNorm3d(inner_channels)
        self.attention = ATTENTION[attention](inner_channels) if attention != "none" else None
        self.project = PointwiseConv3d(inner_channels, out_channels)
        last = nn.BatchNorm3d(out_channels)
        nn.init.zeros_(last.weight)  # a new block starts as its shortcut
        self.project_norm: nn.Module = last
        self.shortcut: nn.Conv3d | None = None
        self.shortcut_norm: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = PointwiseConv3d(in_channels, out_channels, stride)
            self.shortcut_norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Run the block."""
        branch = F.relu(self.expand_norm(self.expand(x)))
        branch = self.depthwise_norm(self.depthwise(branch))
        if self.attention is not None:
            branch = self.attention(branch)
        branch = self.project_norm(self.project(F.silu(branch)))
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return F.relu(branch + x)


class X3DStem(nn.Module):
    """A 1x3x3 convolution of stride 2 in space, and a depth-wise one over five frames."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.spatial = SpatialConv3d(in_channels, channels)
        self.temporal = TemporalConv3d(channels)
        self.norm: nn.Module = nn.BatchNorm3d(channels)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Run the stem."""
        return F.relu(self.norm(self.temporal(self.spatial(x))))


class X3DHead(nn.Module):
    """Widen, average over a window, and widen again."""

    def __init__(self, channels: int, inner_channels: int, out_channels: int, norm_embed: bool) -> None:
        super().__init__()
        self.expand = PointwiseConv3d(channels, inner_channels)
        self.norm: nn.Module = nn.BatchNorm3d(inner_channels)
        self.embed = PointwiseConv3d(inner_channels, out_channels)
        self.embed_norm: nn.Module = nn.BatchNorm3d(out_channels) if norm_embed else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b c t h w"], window: tuple[int, int, int] | None
    ) -> Float[Tensor, "b d t2 h2 w2"]:
        """Args: `x`, the last map; `window`, what is averaged over with stride 1, `None`: everything."""
        x = F.relu(self.norm(self.expand(x)))
        x = x.mean((2, 3, 4), keepdim=True) if window is None else F.avg_pool3d(x, window, stride=1)
        return F.relu(self.embed_norm(self.embed(x)))
