"""A 2D ResNet on video: TSN, TSM, and what drop-in blocks make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.input_spec import InputSpec
from saccade.nn.torchvision_weights import load_backbone
from saccade.ops.temporal import check_clips, temporal_shift

LAYERS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
}


class ResidualBlock(nn.Module):
    """A residual block on folded frames, whose branch may begin with a temporal shift; the shortcut is not shifted.

    Args:
        in_channels: Channels of the input.
        width: Channels inside.
        kind: `basic` (two 3x3 convolutions, stride in the first) or `bottleneck` (1x1, 3x3 with the stride, 1x1).
        stride: Of the block.
        out_channels: Channels of the output; `None`: `width`, or 4 times `width` for a bottleneck.
        shift: One of how many channels is shifted, each way (TSM, placement "blockres"); `None`: no shift.

    Note:
        Sources: arXiv:1512.03385 (ResNet); arXiv:1811.08383, section 3.2 (residual shift). Keys as in torchvision.

    Example:
        >>> import torch
        >>> ResidualBlock(16, 16, shift=8)(torch.randn(4, 16, 7, 7), num_frames=2).shape
        torch.Size([4, 16, 7, 7])
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        kind: Literal["basic", "bottleneck"] = "basic",
        stride: int = 1,
        out_channels: int | None = None,
        shift: int | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("basic", "bottleneck"):
            raise ValueError(f"a block is 'basic' or 'bottleneck', not {kind!r}")
        out_channels = out_channels or (width if kind == "basic" else 4 * width)
        self.shift = shift
        if kind == "basic":
            self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, out_channels, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(out_channels)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out_channels)
        self.kind = kind
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Float[Tensor, "bt c h w"], num_frames: int) -> Float[Tensor, "bt d h2 w2"]:
        """Args: `x`, frames folded clip by clip; `num_frames`, frames in a clip."""
        branch = x if self.shift is None else temporal_shift(x, num_frames, self.shift)
        branch = F.relu(self.bn1(self.conv1(branch)))
        branch = self.bn2(self.conv2(branch))
        if self.kind == "bottleneck":
            branch = self.bn3(self.conv3(F.relu(branch)))
        return F.relu(branch + (x if self.downsample is None else self.downsample(x)))


class Stage(nn.Sequential):
    """Residual blocks one after another, each told the length of a clip."""

    def forward(self, x: Float[Tensor, "bt c h w"], num_frames: int) -> Float[Tensor, "bt d h2 w2"]:  # type: ignore[override]
        """Args: `x`, frames folded clip by clip; `num_frames`, frames in a clip."""
        for block in self:
            x = block(x, num_frames)
        return x


class VideoResNet(nn.Module):
    """A 2D ResNet applied to each frame of a clip; the clip's logits are the mean over its frames.

    Without `shift` this is TSN, with `shift=8` TSM; `slot` puts a block such as
    [`MotionSqueeze`][saccade.action.motion_squeeze.MotionSqueeze] after a stage. Frames are folded into the batch
    inside, and every part that mixes frames is told how many make a clip.

    Args:
        num_classes: Classes.
        block: `basic` or `bottleneck`.
        layers: Blocks in each stage; the default is ResNet-50's.
        stem_width: Channels of the first convolution.
        stage_widths: Inner channels of the stages (a bottleneck gives out 4 times as many); one for each of `layers`.
        stem_kernel: Side of the first convolution, odd; its stride is 2.
        stem_pool: Whether a 3x3 max pooling of stride 2 follows it.
        in_channels: Channels of a frame: 3, or 1 for grey.
        shift: One of how many channels the temporal shift moves each way; `None`: no shift.
        shift_every: Shift the first of every so many blocks (TSM shifts every second of ResNet-101).
        slot: Block called as `slot(x, num_frames)` with folded frames (b*t, c, h, w); gives the same shape.
        slot_after: The stage after which it sits, counted from 1.
        dropout: Before the classifier.
        input_spec: What the model is meant to be fed.

    Raises:
        ValueError: Lists of different lengths, a slot after a stage that is not there, no classes.

    Note:
        Sources: arXiv:1608.00859 (TSN), arXiv:1811.08383 (TSM). State-dict keys as torchvision's ResNet, the
        slot's below `slot.`; convolutions start Kaiming normal (fan out), the classifier Xavier uniform.

    Example:
        >>> import torch
        >>> tsm = VideoResNet(5, "basic", (1, 1), stage_widths=(64, 128), shift=8)
        >>> tsm(torch.randn(2, 3, 4, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        num_classes: int,
        block: Literal["basic", "bottleneck"] = "bottleneck",
        layers: Sequence[int] = (3, 4, 6, 3),
        *,
        stem_width: int = 64,
        stage_widths: Sequence[int] = (64, 128, 256, 512),
        stem_kernel: int = 7,
        stem_pool: bool = True,
        in_channels: int = 3,
        shift: int | None = None,
        shift_every: int = 1,
        slot: nn.Module | None = None,
        slot_after: int = 2,
        dropout: float = 0.5,
        input_spec: InputSpec | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes has to be at least 1, not {num_classes}")
        if not layers or len(layers) != len(stage_widths):
            raise ValueError(f"layers and stage_widths need one length, not {len(layers)} and {len(stage_widths)}")
        if slot is not None and not 1 <= slot_after <= len(layers):
            raise ValueError(f"slot_after has to be a stage from 1 to {len(layers)}, not {slot_after}")
        if stem_kernel < 1 or stem_kernel % 2 == 0 or shift_every < 1:
            raise ValueError(f"stem_kernel has to be odd and shift_every >= 1, not {stem_kernel} and {shift_every}")
        self.input_spec = input_spec or InputSpec()
        self.conv1 = nn.Conv2d(in_channels, stem_width, stem_kernel, 2, padding=stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if stem_pool else nn.Identity()
        channels, expansion = stem_width, 1 if block == "basic" else 4
        for number, (depth, width) in enumerate(zip(layers, stage_widths, strict=True), start=1):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and number > 1 else 1
                shifted = shift if i % shift_every == 0 else None
                blocks.append(ResidualBlock(channels, width, block, stride, width * expansion, shifted))
                channels = width * expansion
            setattr(self, f"layer{number}", Stage(*blocks))
        self.stages = len(layers)
        self.features = channels
        self.slot_after = slot_after
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.slot = slot

    def forward(self, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k"]:
        """Classify clips.

        Args:
            clips: Normalised clips.

        Returns:
            Logits, the mean over frames.

        Raises:
            TypeError: uint8 or other integer input.
            ValueError: Another rank or number of channels.
        """
        self.input_spec.check_clips(clips, self.conv1.in_channels)
        frames = clips.transpose(1, 2)
        return self.frame_logits(frames.flatten(0, 1), clips.shape[2]).unflatten(0, (-1, clips.shape[2])).mean(1)

    def frame_logits(self, frames: Float[Tensor, "bt c h w"], num_frames: int) -> Float[Tensor, "bt k"]:
        """Logits of each frame.

        Args:
            frames: Normalised frames, folded clip by clip.
            num_frames: Frames in a clip.

        Returns:
            Logits by frame, before the mean.
        """
        features = self.frame_features(frames, num_frames)
        return self.fc(self.dropout(features.mean((2, 3))))

    def frame_features(self, frames: Float[Tensor, "bt c h w"], num_frames: int) -> Float[Tensor, "bt d h2 w2"]:
        """The map after the last stage.

        Args:
            frames: Normalised frames, folded clip by clip.
            num_frames: Frames in a clip.

        Returns:
            Features by frame.
        """
        check_clips(frames, num_frames)
        x = self.pool(F.relu(self.bn1(self.conv1(frames))))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x, num_frames)
            if self.slot is not None and number == self.slot_after:
                x = self.slot(x, num_frames)
        return x

    def load_torchvision(self, state: Mapping[str, Tensor]) -> None:
        """Start from a torchvision ResNet trained on images: all but the classifier, the slot and inserted blocks.

        Args:
            state: Its state dict. The classifier `fc` is taken where it has as many classes, and left out otherwise.

        Raises:
            ValueError: A key of the backbone is missing, unknown, or of another shape.
        """
        load_backbone(self, state, ("slot.",))


def video_resnet(
    name: str,
    num_classes: int,
    *,
    num_frames: int = 8,
    make_slot: Callable[[int], nn.Module] | None = None,
    **options: object,
) -> VideoResNet:
    """A [`VideoResNet`][saccade.nn.video_resnet.VideoResNet] with the sizes of a ResNet.

    Args:
        name: `resnet18`, `resnet34`, `resnet50` or `resnet101`.
        num_classes: Classes.
        num_frames: Frames in a clip, for its `input_spec`.
        make_slot: Gives the block behind the second stage for that stage's width; none where `None`.
        **options: `shift`, `dropout` and the like.

    Returns:
        The network.

    Raises:
        ValueError: Another name.

    Example:
        >>> video_resnet("resnet18", 10, shift=8).features
        512
    """
    if name not in LAYERS:
        raise ValueError(f"the backbones here are {', '.join(LAYERS)}, not {name!r}")
    block, layers = LAYERS[name]
    if make_slot is not None:
        options["slot"] = make_slot(128 if block == "basic" else 512)
    return VideoResNet(num_classes, block, layers, input_spec=InputSpec(frames=num_frames), **options)  # type: ignore[arg-type]
