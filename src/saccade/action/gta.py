"""Global temporal attention (GTA): what comes before what, learnt once for all clips (arXiv:2012.08510).

Attention over space and time at once hides the order of time, for it compares tokens as a set; and it is computed anew
for each clip, although what comes before what is common to all. GTA parts the two:

1. *Space.* Ordinary attention inside each frame.
2. *Time.* A matrix that is not computed from the clip but learnt, one for all samples and places, mixes the frames.
   Its cross-channel form lets every head see every other:
   [`CrossChannelTemporalMixing`][saccade.action.gta.CrossChannelTemporalMixing].
3. *Regions.* The same once more for a few regions that a learnt assignment gathers from each frame.

A 2D network that averages over frames cannot tell a clip from its reversal, nor can dot-product attention over time
help it: permuting the frames permutes the output. The learnt matrix breaks that symmetry at almost no cost: with N
heads, T frames and C inner channels it takes N T² C products a place.

How it is used: [`insert_gta`][saccade.action.gta.insert_gta] puts blocks into any video network; or hand a
`GlobalTemporalAttention` to the `slot` of a [`VideoResNet`][saccade.nn.video_resnet.VideoResNet]. Of the paper the
abstracts could be read; shapes and initialisation are a reading of them, and marked in the docstrings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.action.dot_product_attention import AddedBranch, DotProductAttention
from saccade.nn.video_resnet import VideoResNet, video_resnet
from saccade.surgery import Undo, get_module, insert_after, width_of

Normalization = Literal["linear", "softmax"]
Temporal = Literal["global", "dot", "joint"]


class CrossChannelTemporalMixing(nn.Module):
    r"""Mixes the frames of N heads by one learnt matrix, $o_i = \sum_j M_{ij} v_j$ with $M_{ij} \in \mathbb R^{T×T}$.

    Args:
        num_frames: T.
        channels: Of the values; a multiple of `heads`.
        heads: N; 1 gives plain mixing by a T x T matrix.
        cross_channel: Whether heads see each other; without, only the blocks $M_{ii}$ are used.
        normalization: `linear`, the matrix as it is (differences over time can be expressed), or `softmax`, rows that
            are convex.

    Attributes:
        attention: (N T, N T); row i T + t is frame t of output head i, column j T + s is frame s of input head j. It
            takes no weight decay.

    Raises:
        ValueError: Fewer than one frame, channels that heads do not divide, an unknown normalisation.

    Note:
        Source: arXiv:2012.08510 (cross-channel multi-head attention); the formula is our reading of it.

    Example:
        >>> mixing = CrossChannelTemporalMixing(num_frames=8, channels=32)
        >>> mixing(torch.randn(2, 8, 49, 32)).shape
        torch.Size([2, 8, 49, 32])
    """

    no_weight_decay = ("attention",)

    def __init__(
        self,
        num_frames: int,
        channels: int,
        heads: int = 4,
        cross_channel: bool = True,
        normalization: Normalization = "linear",
    ) -> None:
        super().__init__()
        if num_frames < 1 or heads < 1:
            raise ValueError(f"num_frames and heads have to be at least 1, not {num_frames} and {heads}")
        if channels < 1 or channels % heads:
            raise ValueError(f"channels have to be a multiple of heads, not {channels} with {heads}")
        if normalization not in get_args(Normalization):
            raise ValueError(f"normalization is one of {', '.join(get_args(Normalization))}, not {normalization!r}")
        self.num_frames, self.channels, self.heads = num_frames, channels, heads
        self.cross_channel, self.normalization = cross_channel, normalization
        size = heads * num_frames
        self.attention: Tensor = nn.Parameter(torch.randn(size, size) * size**-0.5)

    def forward(self, v: Float[Tensor, "b t p c"]) -> Float[Tensor, "b t p c"]:
        """Mix the frames of each place.

        Args:
            v: Values of T frames.

        Returns:
            The same shape.

        Raises:
            ValueError: Another number of frames or channels.
        """
        batch, frames, places, channels = v.shape
        check_frames(frames, self.num_frames)
        if channels != self.channels:
            raise ValueError(f"values have {channels} channels; {self.channels} are accepted")
        # heads and frames side by side: one product mixes all
        by_head = v.unflatten(3, (self.heads, -1)).permute(0, 3, 1, 2, 4).reshape(batch, self.heads * frames, -1)
        mixed = self.weights().to(v.dtype) @ by_head
        return mixed.view(batch, self.heads, frames, places, -1).permute(0, 2, 3, 1, 4).flatten(3)

    def weights(self) -> Float[Tensor, "n n"]:
        """The matrix that mixes, normalised."""
        matrix = self.attention
        if not self.cross_channel:
            head = torch.arange(self.heads, device=matrix.device).repeat_interleave(self.num_frames)
            outside = head.unsqueeze(1) != head
            matrix = matrix.masked_fill(outside, -torch.inf if self.normalization == "softmax" else 0.0)
        return matrix.softmax(dim=1) if self.normalization == "softmax" else matrix

    def resized(self, num_frames: int) -> CrossChannelTemporalMixing:
        """The same for another number of frames: blocks resized bilinearly, with the sums of their rows kept.

        Args:
            num_frames: Wanted.

        Returns:
            A new module.
        """
        new = CrossChannelTemporalMixing(
            num_frames, self.channels, self.heads, self.cross_channel, self.normalization
        ).to(self.attention)
        old, heads = self.num_frames, self.heads
        with torch.no_grad():
            blocks = self.attention.view(heads, old, heads, old).transpose(1, 2).reshape(-1, 1, old, old)
            size = (num_frames, num_frames)
            larger = F.interpolate(blocks, size=size, mode="bilinear", align_corners=True) * (old / num_frames)
            sums = F.interpolate(blocks.sum(3), size=num_frames, mode="linear", align_corners=True)
            kept = larger + ((sums - larger.sum(3)) / num_frames).unsqueeze(3)
            square = kept.view(heads, heads, num_frames, num_frames).transpose(1, 2)
            new.attention.copy_(square.reshape(heads * num_frames, heads * num_frames))
        return new.train(self.training)


class PixelMixing(AddedBranch):
    """Global temporal attention at each place.

    Args:
        channels: Of the features.
        mixing: Of the inner channels.
        scale: At which the branch's batch norm starts.
    """

    def __init__(self, channels: int, mixing: CrossChannelTemporalMixing, scale: float = 0.0) -> None:
        super().__init__(channels, mixing.channels, scale)
        self.value = nn.Linear(channels, mixing.channels, bias=False)
        self.mixing = mixing

    def forward(self, x: Float[Tensor, "b t p c"]) -> Float[Tensor, "b t p c"]:
        """Args: `x`, tokens. Returns: what is added to them."""
        return self.added(self.mixing(self.value(x)))


class RegionMixing(AddedBranch):
    """Global temporal attention for a few regions: gathered by a learnt assignment, mixed, and spread again.

    Args:
        channels: Of the features.
        mixing: Of the inner channels.
        regions: K.
        scale: At which the branch's batch norm starts.
    """

    def __init__(self, channels: int, mixing: CrossChannelTemporalMixing, regions: int = 8, scale: float = 0.0) -> None:
        super().__init__(channels, mixing.channels, scale)
        if regions < 1:
            raise ValueError(f"regions have to be at least 1, not {regions}")
        self.assign = nn.Linear(channels, regions, bias=False)
        self.value = nn.Linear(channels, mixing.channels, bias=False)
        self.mixing = mixing

    def assignment(self, x: Float[Tensor, "b t p c"]) -> Float[Tensor, "b t p k"]:
        """How much of each place belongs to each region; sums to 1 over regions."""
        return self.assign(x).softmax(dim=3)

    def forward(self, x: Float[Tensor, "b t p c"]) -> Float[Tensor, "b t p c"]:
        """Args: `x`, tokens. Returns: what is added to them."""
        share = self.assignment(x)
        gathered = share.mT @ x / (share.sum(dim=2).unsqueeze(3) + 1e-6)  # b t k c
        return self.added(share @ self.mixing(self.value(gathered)))


class GlobalTemporalAttention(nn.Module):
    """Spatial attention in each frame, then global temporal attention at places and in regions: a drop-in block.

    Args:
        channels: Of the features.
        num_frames: Frames of a clip; another number at the call is an error, see
            [`resized`][saccade.action.gta.GlobalTemporalAttention.resized].
        inner_channels: Of queries, values and the like; half of `channels` where `None`.
        heads: Of the mixing over time.
        regions: K.
        spatial: Whether places of a frame attend to each other first.
        pixel: Whether time is mixed at each place.
        region: Whether time is mixed in regions, which is done with `temporal="global"` alone.
        temporal: `global`, or for comparison `dot`, attention over time that is computed from the clip, place by
            place, and `joint`, attention over space and time at once, with which there is nothing else.
        cross_channel: As for [`CrossChannelTemporalMixing`][saccade.action.gta.CrossChannelTemporalMixing].
        normalization: The same.
        scale: At which batch norms of the branches start; with 0 the block starts as the identity.

    Raises:
        ValueError: All parts are off, no regions, inner channels that heads do not divide, an unknown mode;
            `temporal="dot"` without `pixel`.

    Note:
        Source: arXiv:2012.08510. Half of the channels inside, 4 heads, 8 regions and the scale of 0 are choices.

    Example:
        >>> block = GlobalTemporalAttention(channels=16, num_frames=4)
        >>> block(torch.randn(2, 16, 4, 7, 7)).shape
        torch.Size([2, 16, 4, 7, 7])
        >>> block(torch.randn(2 * 4, 16, 7, 7)).shape  # frames folded into the batch
        torch.Size([8, 16, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        num_frames: int,
        inner_channels: int | None = None,
        heads: int = 4,
        regions: int = 8,
        spatial: bool = True,
        pixel: bool = True,
        region: bool = True,
        temporal: Temporal = "global",
        cross_channel: bool = True,
        normalization: Normalization = "linear",
        scale: float = 0.0,
    ) -> None:
        super().__init__()
        if temporal not in get_args(Temporal):
            raise ValueError(f"temporal is one of {', '.join(get_args(Temporal))}, not {temporal!r}")
        if not (spatial or pixel or region):
            raise ValueError("spatial, pixel and region are all off: nothing is left of the block")
        if regions < 1:
            raise ValueError(f"regions have to be at least 1, not {regions}")
        inner = max(channels // 2, 1) if inner_channels is None else inner_channels
        self.channels, self.num_frames, self.temporal = channels, num_frames, temporal

        def mixing() -> CrossChannelTemporalMixing:
            return CrossChannelTemporalMixing(num_frames, inner, heads, cross_channel, normalization)

        self.spatial: DotProductAttention | None = None
        self.pixel: nn.Module | None = None
        self.region: RegionMixing | None = None
        if temporal == "joint":
            self.spatial = DotProductAttention(channels, inner, "joint", scale=scale)
            return
        if spatial:
            self.spatial = DotProductAttention(channels, inner, "space", scale=scale)
        if temporal == "dot":
            if not pixel:
                raise ValueError("temporal='dot' attends over time at each place: pixel cannot be off")
            if inner % heads:
                raise ValueError(f"inner_channels have to be a multiple of heads, not {inner} with {heads}")
            self.pixel = DotProductAttention(channels, inner, "time", heads, scale)
            return
        if pixel:
            self.pixel = PixelMixing(channels, mixing(), scale)
        if region:
            self.region = RegionMixing(channels, mixing(), regions, scale)

    def forward(self, x: Float[Tensor, "b c *thw"], num_frames: int | None = None) -> Float[Tensor, "b c *thw"]:
        """Mix space, then time.

        Args:
            x: Features (b, c, t, h, w), or with frames folded into the batch, (b*t, c, h, w).
            num_frames: Frames in a clip, where they are folded; the block's own where `None`.

        Returns:
            The same shape.

        Raises:
            TypeError: Not a floating-point tensor.
            ValueError: Another rank, number of channels or number of frames.
        """
        if not x.is_floating_point():
            raise TypeError(f"features have to be a floating-point tensor, not {x.dtype}")
        if x.ndim not in (4, 5) or x.shape[1] != self.channels:
            accepted = f"(b, {self.channels}, t, h, w) or (b*t, {self.channels}, h, w)"
            raise ValueError(f"features have to be {accepted}, not {tuple(x.shape)}")
        frames = x.shape[2] if x.ndim == 5 else self.num_frames if num_frames is None else num_frames
        check_frames(frames, self.num_frames)
        if x.ndim == 4 and x.shape[0] % frames:
            raise ValueError(f"{len(x)} frames are folded into the batch; a multiple of {frames} is accepted")
        grid = x.shape[-2:]
        if x.ndim == 5:
            tokens = x.flatten(3).permute(0, 2, 3, 1)
        else:
            tokens = x.unflatten(0, (-1, frames)).flatten(3).transpose(2, 3)
        tokens = self.mix(tokens)
        if x.ndim == 5:
            return tokens.permute(0, 3, 1, 2).unflatten(3, grid)
        return tokens.transpose(2, 3).flatten(0, 1).unflatten(2, grid)

    def mix(self, tokens: Float[Tensor, "b t p c"]) -> Float[Tensor, "b t p c"]:
        """The block on tokens."""
        if self.spatial is not None:
            tokens = tokens + self.spatial(tokens)
        branches = [branch(tokens) for branch in (self.pixel, self.region) if branch is not None]
        return tokens + sum(branches) if branches else tokens

    @torch.no_grad()
    def resized(self, num_frames: int) -> GlobalTemporalAttention:
        """Bring the block to another number of frames, in place, by resizing its matrices.

        Args:
            num_frames: Wanted.

        Returns:
            The block.
        """
        for branch in (self.pixel, self.region):
            if isinstance(branch, PixelMixing | RegionMixing):
                branch.mixing = branch.mixing.resized(num_frames)
        self.num_frames = num_frames
        return self


def insert_gta(
    backbone: nn.Module,
    num_frames: int,
    stages: Sequence[str] = ("layer2", "layer3"),
    every: int | None = 2,
    **options: Any,
) -> list[Undo]:
    """Put blocks behind residual blocks of a network, in place.

    Args:
        backbone: A network whose stages are sequences of residual blocks, 2D on folded frames or 3D.
        num_frames: Frames that the blocks see.
        stages: Names of the stages.
        every: Behind every so many residual blocks, the last among them; behind the last alone where `None`.
        **options: As for [`GlobalTemporalAttention`][saccade.action.gta.GlobalTemporalAttention].

    Returns:
        One for each block; calling it takes the block out.

    Raises:
        ValueError: No such stage, or `every` below 1.

    Note:
        Source: the usual places of non-local blocks: 2 in res3 and 3 in res4 of a ResNet-50; `every=None` with
        `stages=("layer3",)` is the light model.

    Example:
        >>> from saccade.nn.video_resnet import video_resnet
        >>> tsn = video_resnet("resnet50", num_classes=5)
        >>> len(insert_gta(tsn, num_frames=4))
        5
        >>> tsn(torch.randn(1, 3, 4, 32, 32)).shape
        torch.Size([1, 5])
    """
    if every is not None and every < 1:
        raise ValueError(f"every has to be at least 1, not {every}")
    cuts = []
    for stage in stages:
        count = len(list(get_module(backbone, stage).children()))
        step = count if every is None else every
        for place in reversed(range(count - 1, -1, -step)):
            name = f"{stage}.{place}"
            block = GlobalTemporalAttention(width_of(get_module(backbone, name)), num_frames, **options)
            cuts.append(insert_after(backbone, name, block, as_name="gta"))
    return cuts


def gta_resnet(
    backbone: str = "resnet50",
    num_classes: int = 174,
    num_frames: int = 8,
    stages: Sequence[str] = ("layer2", "layer3"),
    every: int | None = 2,
    dropout: float = 0.5,
    options: dict[str, Any] | None = None,
) -> VideoResNet:
    """A TSN-ResNet with blocks of global temporal attention.

    Args:
        backbone: `resnet18`, `resnet34`, `resnet50` or `resnet101`.
        num_classes: Classes.
        num_frames: Frames in a clip.
        stages: As for [`insert_gta`][saccade.action.gta.insert_gta].
        every: The same.
        dropout: Before the classifier.
        options: Of the blocks.

    Returns:
        The network, to be called with clips (b, 3, t, h, w).

    Example:
        >>> gta_resnet("resnet18", num_classes=5, num_frames=2)(torch.randn(1, 3, 2, 64, 64)).shape
        torch.Size([1, 5])
    """
    network = video_resnet(backbone, num_classes, num_frames=num_frames, dropout=dropout)
    insert_gta(network, num_frames, stages, every, **(options or {}))
    return network


def check_frames(came: int, wanted: int) -> None:
    """Raise unless a clip has the frames that a matrix was learnt for."""
    if came != wanted:
        raise ValueError(
            f"the clip has {came} frames, and the attention was made for {wanted}: "
            f"`resized({came})` brings it to that length"
        )
