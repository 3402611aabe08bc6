"""R(2+1)D: residual networks whose 3D convolutions are split into space and time (arXiv:1711.11248)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.input_spec import InputSpec
from saccade.nn.torchvision_weights import load_backbone

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
LAYERS: dict[str, tuple[Literal["basic", "bottleneck"], tuple[int, int, int, int]]] = {
    "r2plus1d_18": ("basic", (2, 2, 2, 2)),
    "r2plus1d_34": ("basic", (3, 4, 6, 3)),
    "r2plus1d_50": ("bottleneck", (3, 4, 6, 3)),
}


def mid_channels(in_channels: int, out_channels: int) -> int:
    """Channels between the two halves with which they have as many weights as one 3x3x3 convolution.

    Args:
        in_channels: Of the spatial half.
        out_channels: Of the temporal half.

    Returns:
        Channels.

    Example:
        >>> mid_channels(64, 64)
        144
    """
    return in_channels * out_channels * 27 // (in_channels * 9 + 3 * out_channels)


class TemporalConv3d(nn.Conv3d):
    """A 3x1x1 convolution; on a CPU a 2D one over time and positions.

    It computes the same, also in bfloat16, where the gradient of oneDNN's own 3x1x1 convolution of two frames is wrong.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        stride: In time.

    Example:
        >>> import torch
        >>> TemporalConv3d(4, 6)(torch.randn(1, 4, 3, 5, 5)).shape
        torch.Size([1, 6, 3, 5, 5])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False)

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h w"]:
        """Convolve."""
        if input.device.type != "cpu":
            return super().forward(input)
        y = F.conv2d(input.flatten(3), self.weight.squeeze(4), self.bias, (self.stride[0], 1), (1, 0))
        return y.unflatten(3, input.shape[3:])


class Conv2Plus1D(nn.Sequential):
    """A 1x3x3 convolution, batch norm, ReLU and a 3x1x1 convolution, in the place of one 3x3x3 convolution.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        middle: Between the two convolutions.
        stride: Of the spatial convolution in space, and of the temporal one in time.

    Example:
        >>> import torch
        >>> Conv2Plus1D(8, 16, 12, stride=2)(torch.randn(1, 8, 4, 8, 8)).shape
        torch.Size([1, 16, 2, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, middle: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(in_channels, middle, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(),
            TemporalConv3d(middle, out_channels, stride),
        )


class R2Plus1DBlock(nn.Module):
    """A residual block of split convolutions; the stride is one of time and space.

    Args:
        in_channels: Channels of the input.
        width: Channels inside.
        kind: `basic` (two split convolutions) or `bottleneck` (1x1x1, split, 1x1x1 to four times the width).
        stride: Of the block.

    Raises:
        ValueError: Another kind.

    Example:
        >>> import torch
        >>> R2Plus1DBlock(8, 16, stride=2)(torch.randn(1, 8, 4, 8, 8)).shape
        torch.Size([1, 16, 2, 4, 4])
    """

    def __init__(
        self, in_channels: int, width: int, kind: Literal["basic", "bottleneck"] = "basic", stride: int = 1
    ) -> None:
        super().__init__()
        if kind not in ("basic", "bottleneck"):
            raise ValueError(f"a block is 'basic' or 'bottleneck', not {kind!r}")
        out_channels, middle = width * (1 if kind == "basic" else 4), mid_channels(in_channels, width)
        if kind == "basic":
            self.conv1 = nn.Sequential(
                Conv2Plus1D(in_channels, width, middle, stride), nn.BatchNorm3d(width), nn.ReLU()
            )
            self.conv2 = nn.Sequential(Conv2Plus1D(width, width, middle), nn.BatchNorm3d(width))
            self.conv3: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Sequential(nn.Conv3d(in_channels, width, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU())
            self.conv2 = nn.Sequential(Conv2Plus1D(width, width, middle, stride), nn.BatchNorm3d(width), nn.ReLU())
            self.conv3 = nn.Sequential(nn.Conv3d(width, out_channels, 1, bias=False), nn.BatchNorm3d(out_channels))
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """Run the block."""
        branch = self.conv3(self.conv2(self.conv1(x)))
        return F.relu(branch + (x if self.downsample is None else self.downsample(x)))


class R2Plus1D(nn.Module):
    """A ResNet with every 3D convolution split into space and time: clips to logits.

    Args:
        num_classes: Classes.
        block: `basic` or `bottleneck`.
        layers: Blocks in each stage.
        stem_width: Channels of the stem.
        stem_middle: Channels between the halves of the stem.
        stage_widths: Inner channels of the stages; one for each of `layers`.
        in_channels: Channels of a frame.
        dropout: Before the classifier; torchvision has none.
        input_spec: What the model is meant to be fed; `None`: 16 frames of 112 x 112, every second of the video.

    Raises:
        ValueError: Lists of different lengths, no classes, an unknown kind of block.

    Note:
        Source: arXiv:1711.11248. State-dict keys as torchvision's; stages after the first halve time and space.
        `features` is the number of inputs of the classifier `fc`.

    Example:
        >>> import torch
        >>> model = R2Plus1D(5, layers=(1, 1), stem_width=8, stem_middle=6, stage_widths=(8, 16))
        >>> model(torch.randn(2, 3, 4, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        num_classes: int = 400,
        block: Literal["basic", "bottleneck"] = "basic",
        layers: Sequence[int] = (2, 2, 2, 2),
        *,
        stem_width: int = 64,
        stem_middle: int = 45,
        stage_widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        dropout: float = 0.0,
        input_spec: InputSpec | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes has to be at least 1, not {num_classes}")
        if not layers or len(layers) != len(stage_widths):
            raise ValueError(f"layers and stage_widths need one length, not {len(layers)} and {len(stage_widths)}")
        self.input_spec = input_spec or InputSpec(size=112, frames=16, stride=2, mean=MEAN, std=STD)
        self.in_channels = in_channels
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, stem_middle, (1, 7, 7), (1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(stem_middle),
            nn.ReLU(),
            TemporalConv3d(stem_middle, stem_width),
            nn.BatchNorm3d(stem_width),
            nn.ReLU(),
        )
        channels = stem_width
        for number, (depth, width) in enumerate(zip(layers, stage_widths, strict=True), start=1):
            blocks = []
            for i in range(depth):
                blocks.append(R2Plus1DBlock(channels, width, block, 2 if i == 0 and number > 1 else 1))
                channels = width * (1 if block == "basic" else 4)
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.stages = len(layers)
        self.features = channels
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k"]:
        """Classify clips.

        Args:
            clips: Normalised clips.

        Returns:
            Logits.

        Raises:
            TypeError: uint8 or other integer input.
            ValueError: Another rank or number of channels.
        """
        return self.fc(self.dropout(self.clip_features(clips).mean((2, 3, 4))))

    def clip_features(self, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """The map after the last stage.

        Args:
            clips: Normalised clips.

        Returns:
            Features.

        Raises:
            TypeError: uint8 or other integer input.
            ValueError: Another rank or number of channels.
        """
        self.input_spec.check_clips(clips, self.in_channels)
        x = self.stem(clips)
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return x

    def load_torchvision(self, state: Mapping[str, Tensor]) -> None:
        """Start from torchvision's weights, such as those of `R2Plus1D_18_Weights.KINETICS400_V1`.

        Args:
            state: Its state dict. The classifier `fc` is taken where it has as many classes, and left out otherwise.

        Raises:
            ValueError: A key of the backbone is missing, unknown, or of another shape.
        """
        load_backbone(self, state)


def r2plus1d(name: str, num_classes: int = 400, **options: object) -> R2Plus1D:
    """An [`R2Plus1D`][saccade.nn.r2plus1d.R2Plus1D] with the sizes of a ResNet.

    Args:
        name: `r2plus1d_18` (torchvision's), `r2plus1d_34` or `r2plus1d_50`.
        num_classes: Classes.
        **options: Of `R2Plus1D`.

    Returns:
        The network.

    Raises:
        ValueError: Another name.

    Example:
        >>> r2plus1d("r2plus1d_18", 10).features
        512
    """
    if name not in LAYERS:
        raise ValueError(f"the backbones here are {', '.join(LAYERS)}, not {name!r}")
    block, layers = LAYERS[name]
    return R2Plus1D(num_classes, block, layers, **options)  # type: ignore[arg-type]
