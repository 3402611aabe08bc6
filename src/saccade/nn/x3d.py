"""X3D: small 3D networks for video, with depth-wise convolutions (arXiv:2004.04730).

X3D grows a tiny network along time, space, width and depth until it has the wanted cost. What comes out is thin: blocks
of a 1x1x1 convolution that widens, a depth-wise 3x3x3 convolution with squeeze-excitation and Swish, and a 1x1x1
convolution that narrows again; frames are never merged before the end. X3D-S has 3.8 million parameters and takes 1.96
billion multiply-adds for 13 frames of 160 x 160.

The depth-wise convolutions decide the speed. On a CPU they are several times faster when the channels of a position lie
beside each other in memory (`torch.channels_last_3d`): clips are brought into that order on entry, and 1x1x1
convolutions are matrix products, which keep it. The result is the same.
[`X3D.fused`][saccade.nn.x3d.X3D.fused] also folds the batch norms into the convolutions, for inference.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from saccade.nn.clip_convolutions import PointwiseConv3d, SpatialConv3d, TemporalConv3d
from saccade.nn.input_spec import InputSpec

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
DEPTHS = (1, 2, 5, 3)


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


class X3DBlock(nn.Module):
    """Widen, convolve every channel by itself, narrow, and add the input.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        inner_channels: Of the depth-wise convolution.
        kernel: Of the depth-wise convolution, in time, height and width; odd.
        stride: In space; time is never strided.
        se: Whether squeeze-excitation follows the depth-wise convolution.

    Raises:
        ValueError: A kernel that is not three odd sides, a stride or a width below 1.

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
        se: bool = True,
    ) -> None:
        super().__init__()
        if len(kernel) != 3 or any(side < 1 or side % 2 == 0 for side in kernel):
            raise ValueError(f"kernel has to be three odd sides, of time, height and width, not {kernel}")
        if min(in_channels, out_channels, inner_channels, stride) < 1:
            given = f"{in_channels}, {out_channels}, {inner_channels} and {stride}"
            raise ValueError(f"channels and stride have to be at least 1, not {given}")
        self.expand = PointwiseConv3d(in_channels, inner_channels)
        self.expand_norm: nn.Module = nn.BatchNorm3d(inner_channels)
        self.depthwise = nn.Conv3d(
            inner_channels,
            inner_channels,
            kernel,
            (1, stride, stride),
            padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2),
            groups=inner_channels,
            bias=False,
        )
        self.depthwise_norm: nn.Module = nn.BatchNorm3d(inner_channels)
        self.attention = SqueezeExcitation(inner_channels) if se else None
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


class X3D(nn.Module):
    """The X3D network: clips to logits.

    In eval mode it also takes clips larger than it was made for: as in the authors' tests the head slides over the
    last map, the probabilities of all places are averaged, and the logits are the logarithm of that mean. In training
    it averages over the whole map.

    Args:
        frames: Frames of a clip.
        crop: Side of a frame in pixels, at least 32.
        width_factor: Factor of the widths 12, 24, 48, 96.
        depth_factor: Factor of the depths 1, 2, 5, 3, rounded up.
        bottleneck_factor: Inner channels of a block, as a multiple of its output channels.
        dim_c1: Base width of the stem and of the first stage.
        dim_c5: Channels before the classifier.
        num_classes: Classes.
        dropout: Before the classifier.
        widths: Channels of the stem and of the four stages; `None`: as `dim_c1` and `width_factor` say, the base
            widths doubled in whole eights and the products left as they are.
        depths: Blocks in each stage; `None`: as `depth_factor` says.
        norm_embed: Batch norm between the last convolution and its ReLU.
        in_channels: Channels of a frame.
        stride: Frames of the video from one frame of the clip to the next, for its `input_spec`.

    Raises:
        ValueError: A crop below 32, no frames or classes, a factor that is not positive, lists of another length.

    Note:
        Source: arXiv:2004.04730. `features` is the number of inputs of the classifier `fc`; stages are `layer1` to
        `layer4`. Convolutions start Kaiming normal (fan out), the last norm of each block at zero, the classifier
        N(0, 0.01).

    Example:
        >>> import torch
        >>> model = X3D(4, 32, width_factor=1, depth_factor=0.5, dim_c1=4, dim_c5=16, num_classes=5)
        >>> model(torch.randn(2, 3, 4, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        frames: int,
        crop: int,
        width_factor: float = 2.0,
        depth_factor: float = 2.2,
        bottleneck_factor: float = 2.25,
        dim_c1: int = 12,
        dim_c5: int = 2048,
        num_classes: int = 400,
        dropout: float = 0.5,
        *,
        widths: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        norm_embed: bool = False,
        in_channels: int = 3,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if crop < 32:
            raise ValueError(f"crop has to be at least 32, as it is halved five times, not {crop}")
        if min(frames, num_classes, dim_c1, dim_c5, in_channels) < 1:
            raise ValueError("frames, num_classes, dim_c1, dim_c5 and in_channels have to be at least 1")
        if min(width_factor, depth_factor, bottleneck_factor) <= 0:
            given = f"{width_factor}, {depth_factor} and {bottleneck_factor}"
            raise ValueError(f"the factors of width, depth and bottleneck have to be positive, not {given}")
        if widths is None:
            base = [dim_c1]
            for _ in range(3):
                base.append(round_width(2 * base[-1]))
            stages = [max(1, int(width * width_factor + 0.5)) for width in base]
            widths = [stages[0], *stages]
        depths = [math.ceil(depth_factor * depth) for depth in DEPTHS] if depths is None else depths
        if len(widths) != 5 or len(depths) != 4 or min(*widths, *depths) < 1:
            raise ValueError(f"widths are of stem and four stages, depths of four stages, not {widths} and {depths}")
        self.input_spec = InputSpec(size=crop, frames=frames, stride=stride, mean=MEAN, std=STD)
        self.in_channels = in_channels
        self.stem = X3DStem(in_channels, widths[0])
        channels = widths[0]
        for number, (width, depth) in enumerate(zip(widths[1:], depths, strict=True), start=1):
            blocks = []
            for i in range(depth):
                inner = int(bottleneck_factor * width)
                blocks.append(X3DBlock(channels, width, inner, stride=2 if i == 0 else 1, se=i % 2 == 0))
                channels = width
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.head = X3DHead(channels, int(bottleneck_factor * channels), dim_c5, norm_embed)
        self.dropout = nn.Dropout(dropout)
        self.features = dim_c5
        self.fc = nn.Linear(dim_c5, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
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
        x = self.clip_features(clips)
        size, frames = math.ceil(self.input_spec.size / 32), self.input_spec.frames
        larger = x.shape[2] > frames or max(x.shape[3:]) > size
        if self.training or not larger:
            return self.fc(self.dropout(self.head(x, None).flatten(1)))
        window = (min(frames, x.shape[2]), min(size, x.shape[3]), min(size, x.shape[4]))
        logits = self.fc(self.head(x, window).flatten(2).transpose(1, 2))
        return logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])

    def clip_features(self, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """The map after the last stage, 32 times smaller in space and with as many frames.

        Args:
            clips: Normalised clips.

        Returns:
            Features.

        Raises:
            TypeError: uint8 or other integer input.
            ValueError: Another rank or number of channels.
        """
        self.input_spec.check_clips(clips, self.in_channels)
        if clips.device.type == "cpu":
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        x = self.stem(clips)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return x

    def fused(self) -> X3D:
        """A copy for inference, with the batch norms folded into the convolutions; gives the same logits.

        Returns:
            The copy, in eval mode.

        Example:
            >>> model = X3D(4, 32, depth_factor=0.5, dim_c1=4, dim_c5=16, num_classes=5).eval()
            >>> any(isinstance(module, nn.BatchNorm3d) for module in model.fused().modules())
            False
        """
        model = copy.deepcopy(self).eval()
        pairs = [("temporal", "norm"), ("embed", "embed_norm")]
        pairs += [(name, f"{name}_norm") for name in ("expand", "depthwise", "project", "shortcut")] + [
            ("expand", "norm")
        ]
        for module in list(model.modules()):
            if isinstance(module, X3DBlock | X3DStem | X3DHead):
                for conv, norm in pairs:
                    layer, statistics = getattr(module, conv, None), getattr(module, norm, None)
                    if isinstance(layer, nn.Conv3d) and isinstance(statistics, nn.BatchNorm3d):
                        setattr(module, conv, fuse_conv_bn_eval(layer, statistics))
                        setattr(module, norm, nn.Identity())
        return model


def x3d_xs(num_classes: int = 400, **options: object) -> X3D:
    """X3D-XS: 4 frames, every twelfth, 160 x 160; 0.6 billion multiply-adds.

    Args:
        num_classes: Classes.
        **options: Of [`X3D`][saccade.nn.x3d.X3D].

    Returns:
        The network.
    """
    return _released(4, 160, 12, num_classes, options)


def x3d_s(num_classes: int = 400, **options: object) -> X3D:
    """X3D-S: 13 frames, every sixth, 160 x 160; 1.96 billion multiply-adds.

    Args:
        num_classes: Classes.
        **options: Of [`X3D`][saccade.nn.x3d.X3D].

    Returns:
        The network.

    Example:
        >>> sum(parameter.numel() for parameter in x3d_s().parameters())
        3794322
    """
    return _released(13, 160, 6, num_classes, options)


def x3d_m(num_classes: int = 400, **options: object) -> X3D:
    """X3D-M: 16 frames, every fifth, 224 x 224; 4.7 billion multiply-adds.

    Args:
        num_classes: Classes.
        **options: Of [`X3D`][saccade.nn.x3d.X3D].

    Returns:
        The network.
    """
    return _released(16, 224, 5, num_classes, options)


def x3d_l(num_classes: int = 400, **options: object) -> X3D:
    """X3D-L: 16 frames, every fifth, 312 x 312, and deeper; 18.4 billion multiply-adds.

    Args:
        num_classes: Classes.
        **options: Of [`X3D`][saccade.nn.x3d.X3D].

    Returns:
        The network.
    """
    return _released(16, 312, 5, num_classes, {"depth_factor": 5.0, **options})


def _released(frames: int, crop: int, stride: int, num_classes: int, options: dict[str, object]) -> X3D:
    settings: dict[str, object] = {"frames": frames, "crop": crop, "stride": stride, "num_classes": num_classes}
    return X3D(**(settings | options))  # type: ignore[arg-type]
