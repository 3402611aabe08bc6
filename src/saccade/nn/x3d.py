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
from torch.nn.utils.fusion import fuse_conv_bn_eval

from saccade.nn.input_spec import InputSpec
from saccade.nn.x3d_architecture import X3DArchitecture, plain_stages
from saccade.nn.x3d_blocks import SqueezeExcitation, X3DBlock, X3DHead, X3DStem, round_width

__all__ = ["X3D", "SqueezeExcitation", "X3DBlock", "round_width", "x3d_l", "x3d_m", "x3d_s", "x3d_xs"]

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
DEPTHS = (1, 2, 5, 3)


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
        `layer4`, and `architecture` says what they are made of. Convolutions start Kaiming normal (fan out), the last
        norm of each block at zero, the classifier N(0, 0.01).

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
            scaled = [max(1, int(width * width_factor + 0.5)) for width in base]
            widths = [scaled[0], *scaled]
        depths = [math.ceil(depth_factor * depth) for depth in DEPTHS] if depths is None else depths
        if len(widths) != 5 or len(depths) != 4 or min(*widths, *depths) < 1:
            raise ValueError(f"widths are of stem and four stages, depths of four stages, not {widths} and {depths}")
        stages = plain_stages(widths[1:], depths, bottleneck_factor)
        head = int(bottleneck_factor * widths[-1])
        plan = X3DArchitecture(frames, crop, widths[0], stages, head, dim_c5, in_channels, stride, norm_embed)
        self._build(plan, num_classes, dropout)

    def _build(self, plan: X3DArchitecture, num_classes: int, dropout: float) -> None:
        """Make the layers of an architecture."""
        self.architecture = plan
        self.input_spec = InputSpec(size=plan.crop, frames=plan.frames, stride=plan.stride, mean=MEAN, std=STD)
        self.in_channels = plan.in_channels
        self.stem = X3DStem(plan.in_channels, plan.stem)
        channels = plan.stem
        for number, stage in enumerate(plan.stages, start=1):
            blocks = []
            for i, block in enumerate(stage):
                stride = 1 if i else 2
                blocks.append(X3DBlock(channels, block.out, block.inner, block.kernel, stride, block.attention))
                channels = block.out
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.head = X3DHead(channels, plan.head, plan.features, plan.norm_embed)
        self.dropout = nn.Dropout(dropout)
        self.features = plan.features
        self.fc = nn.Linear(plan.features, num_classes)
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
        frames = self.input_spec.frames
        size = math.ceil(self.input_spec.size / 2 ** (1 + len(self.architecture.stages)))
        larger = x.shape[2] > frames or max(x.shape[3:]) > size
        if self.training or not larger:
            return self.fc(self.dropout(self.head(x, None).flatten(1)))
        window = (min(frames, x.shape[2]), min(size, x.shape[3]), min(size, x.shape[4]))
        logits = self.fc(self.head(x, window).flatten(2).transpose(1, 2))
        return logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])

    def clip_features(self, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """The map after the last stage, with four stages 32 times smaller in space and with as many frames.

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
        for number in range(1, 1 + len(self.architecture.stages)):
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
