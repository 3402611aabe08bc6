"""SELFY: motion as self-similarity in space and time (arXiv:2102.07092).

What a network sees of a place can be turned into relations: how similar is the place to each of its surroundings, in
its own frame and in those before and after? Where something moves, the similarities peak along its path. A SELFY block
sits once in the middle of a video network and reads these peaks; it is told nothing but the action's label. Three
steps, as in section 3 of the paper:

1. *Transformation.* The features are brought to half the size and unit length, and
   [`spatio_temporal_self_similarity`][saccade.ops.correlation.spatio_temporal_self_similarity] compares each position
   with U x V displacements in L frames around its own. Frames and positions that do not exist have similarity 0.
2. *Extraction.* The U x V similarities of each position and temporal offset are an image of a few cells. Small
   convolutions turn it into a feature vector; by soft-argmax it becomes one displacement, by an MLP a vector as well.
3. *Integration.* Convolutions over the frame look at neighbouring vectors, a last one joins the L temporal offsets, and
   the result is brought back to the size of the features and added to them.

It generalises [`MotionSqueeze`][saccade.action.motion_squeeze.MotionSqueeze], which keeps one displacement between
neighbouring frames: similarities keep several candidates, reach over L // 2 frames both ways, and know appearance. The
two share one correlation.

How it is used: build a network with [`selfynet`][saccade.action.selfy.selfynet], put a block into any network with
[`insert_selfy`][saccade.action.selfy.insert_selfy], or call a `SELFYBlock` on the folded frames of any network.

About speed: most of the work are convolutions of b * t * l * h * w images of 9 x 9 cells, for which libraries are slow.
Here the positions lie innermost in memory, as the correlation leaves them, and each row of cells is one matrix product
([`window_convolution`][saccade.ops.window_convolution.window_convolution]). Under autocast convolutions run in the
lower precision, and matching in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.action.selfy_extraction import ConvExtraction, MLPExtraction, SoftArgmaxExtraction
from saccade.nn.on_clips import OnClips, OnTokens
from saccade.nn.video_resnet import VideoResNet, video_resnet
from saccade.nn.video_vit import VideoTransformer
from saccade.ops.correlation import check_window, spatio_temporal_self_similarity
from saccade.ops.temporal import check_clips
from saccade.surgery import Undo, get_module, insert_after, width_of

Extraction = Literal["conv", "softargmax", "mlp"]
Integration = Literal["conv", "mlp", "spatial-mlp"]


class Transformation(nn.Module):
    """Features to similarities: half the size, unit length, and the self-similarity of a window in space and time.

    Args:
        channels: Of the features.
        hidden_channels: Compared.
        window: Temporal offsets L and displacements U and V.

    Note:
        Source: arXiv:2102.07092, section 3.1.

    Example:
        >>> Transformation(8, 4, (3, 5, 5))(torch.randn(2 * 4, 8, 12, 12), num_frames=4).shape
        torch.Size([2, 4, 6, 6, 3, 5, 5])
    """

    def __init__(self, channels: int, hidden_channels: int = 128, window: tuple[int, int, int] = (5, 9, 9)) -> None:
        super().__init__()
        self.window = window
        self.downsample = nn.Sequential(
            nn.Conv2d(channels, hidden_channels, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(hidden_channels),
            nn.ReLU(),
        )

    def forward(self, x: Float[Tensor, "bt c h w"], num_frames: int) -> Float[Tensor, "b t h2 w2 l u v"]:
        """Compare.

        Args:
            x: Features, frames folded clip by clip.
            num_frames: Frames in a clip.

        Returns:
            Similarities, in float32 or double precision.
        """
        reduced = self.downsample(x)
        with torch.autocast(x.device.type, enabled=False):
            exact = reduced.float() if reduced.dtype in (torch.float16, torch.bfloat16) else reduced
            return spatio_temporal_self_similarity(exact.unflatten(0, (-1, num_frames)), self.window)


class FeatureIntegration(nn.Module):
    """Join neighbouring positions and all temporal offsets, and bring the result back to the network's features.

    Args:
        channels: Of the network's features.
        extracted: Channels of the motion features.
        offsets: Temporal offsets L.
        widths: Channels of the convolutions, the last that join the offsets.
        kind: `conv`: 3x3 convolutions in each offset, then one over all; `mlp`: two layers on all offsets of a
            position; `spatial-mlp`: 3x3 convolutions in each offset, then two layers.
        scale: At which the last batch norm starts; with 0 nothing is added at first.

    Note:
        Source: arXiv:2102.07092, section 3.3. As in the authors' code the way back to the full size is a transposed
        convolution of kernel 1: it writes even rows and columns alone.

    Example:
        >>> FeatureIntegration(16, 12, 5, (12, 12, 12, 8))(torch.randn(2, 5, 4, 12, 6, 6), (12, 12)).shape
        torch.Size([8, 16, 12, 12])
    """

    def __init__(
        self,
        channels: int,
        extracted: int,
        offsets: int,
        widths: Sequence[int] = (64, 64, 64, 64),
        kind: Integration = "conv",
        scale: float = 0.0,
    ) -> None:
        super().__init__()
        before = () if kind == "mlp" else widths[:-1]
        self.spatial = nn.Sequential(*(_conv2d(i, o, 3) for i, o in pairwise((extracted, *before))))
        inputs, outputs = offsets * (before[-1] if before else extracted), widths[-1]
        if kind == "conv":
            self.fuse = _conv2d(inputs, outputs, 3)
        else:
            self.fuse = nn.Sequential(_conv2d(inputs, outputs, 1), _conv2d(outputs, outputs, 1))
        norm = nn.BatchNorm2d(channels)
        nn.init.constant_(norm.weight, scale)
        self.upsample = nn.ModuleList([nn.ConvTranspose2d(outputs, channels, 1, 2, bias=False), norm])

    def forward(
        self, features: Float[Tensor, "b l t c h w"], size: tuple[int, int]
    ) -> Float[Tensor, "bt d {size[0]} {size[1]}"]:
        """Integrate.

        Args:
            features: Of all positions and temporal offsets.
            size: Height and width wanted: twice those of the features, or one less.

        Returns:
            What is added to the network's features, frames folded clip by clip.
        """
        count, offsets, frames = features.shape[:3]
        x = self.spatial(features.flatten(0, 2)).unflatten(0, (count, offsets, frames))
        x = self.fuse(x.transpose(1, 2).flatten(2, 3).flatten(0, 1))
        enlarge, norm = self.upsample
        return norm(enlarge(x, output_size=list(size)))


class SELFYBlock(nn.Module):
    """Adds what self-similarity in space and time says of motion to the features of a video network.

    Args:
        channels: Of the features.
        hidden_channels: Compared with each other.
        window: Temporal offsets L (frames from t - L // 2 to t + L // 2) and displacements U and V, odd, U equal to V.
        extraction_channels: Of the convolutions over displacements; the last is the width of the MLP, and soft-argmax
            takes none.
        integration_channels: Of the convolutions over positions; the last join the temporal offsets.
        extraction: `conv`, `softargmax` or `mlp`.
        integration: `conv`, `mlp` or `spatial-mlp`.
        extraction_strides: Of the convolutions over displacements; these decide which windows are accepted.
        scale: At which the last batch norm starts. With 0 the block starts as the identity (after the ReLU), which
            suits a pretrained network; within few steps from scratch it does not move.
        relu: Whether the sum passes a ReLU, as the features of residual networks do. Features of both signs, such as
            those of a transformer, need `False`.

    Raises:
        ValueError: A window that is even, not square, or does not fit the extraction; sizes that are not positive; an
            unknown variant.

    Note:
        Source: arXiv:2102.07092, section 3; layers and initialisation as in the authors' code.

    Example:
        >>> block = SELFYBlock(channels=32, hidden_channels=16)
        >>> features = torch.randn(2 * 4, 32, 14, 14)  # two clips of four frames
        >>> block(features, num_frames=4).shape
        torch.Size([8, 32, 14, 14])
        >>> block(features.unflatten(0, (2, 4))).shape
        torch.Size([2, 4, 32, 14, 14])
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int = 128,
        window: tuple[int, int, int] = (5, 9, 9),
        extraction_channels: Sequence[int] = (4, 16, 64, 64),
        integration_channels: Sequence[int] = (64, 64, 64, 64),
        extraction: Extraction = "conv",
        integration: Integration = "conv",
        extraction_strides: Sequence[int] = (1, 2, 2, 1),
        scale: float = 0.0,
        relu: bool = True,
    ) -> None:
        super().__init__()
        check_window(window)
        for name, kind, known in (("extraction", extraction, Extraction), ("integration", integration, Integration)):
            if kind not in get_args(known):
                raise ValueError(f"{name} is one of {', '.join(get_args(known))}, not {kind!r}")
        sizes = {"channels": channels, "hidden_channels": hidden_channels}
        for name, widths in (
            ("extraction_channels", extraction_channels),
            ("integration_channels", integration_channels),
            ("extraction_strides", extraction_strides),
        ):
            if not widths:
                raise ValueError(f"{name} are empty")
            sizes |= {f"{name}[{i}]": width for i, width in enumerate(widths)}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} has to be positive, not {size}")
        self.channels, self.window, self.relu = channels, window, relu
        self.transformation = Transformation(channels, hidden_channels, window)
        self.extraction: ConvExtraction | MLPExtraction | SoftArgmaxExtraction
        if extraction == "conv":
            self.extraction = ConvExtraction(window[1], extraction_channels, extraction_strides)
        elif extraction == "mlp":
            self.extraction = MLPExtraction(window[1], extraction_channels[-1])
        else:
            self.extraction = SoftArgmaxExtraction()
        self.integration = FeatureIntegration(
            channels, self.extraction.channels, window[0], integration_channels, integration, scale
        )
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b *tc h w"], num_frames: int | None = None) -> Float[Tensor, "b *tc h w"]:
        """Add motion features.

        Args:
            x: Features, frames folded clip by clip (b*t, c, h, w), or frame by frame (b, t, c, h, w).
            num_frames: Frames in a clip, where they are folded.

        Returns:
            Features of the same shape.

        Raises:
            TypeError: Not a floating-point tensor.
            ValueError: Another rank or number of channels; folded frames without `num_frames`, or no multiple of it.
        """
        if not x.is_floating_point():
            raise TypeError(f"features have to be a floating-point tensor, not {x.dtype}")
        if x.ndim not in (4, 5) or x.shape[-3] != self.channels:
            accepted = f"(b*t, {self.channels}, h, w) or (b, t, {self.channels}, h, w)"
            raise ValueError(f"features have to be {accepted}, not {tuple(x.shape)}")
        if x.ndim == 5:
            if num_frames not in (None, x.shape[1]):
                raise ValueError(f"features have {x.shape[1]} frames, and num_frames is {num_frames}")
            return self(x.flatten(0, 1), x.shape[1]).view(x.shape)
        if num_frames is None:
            raise ValueError("features (b*t, c, h, w) do not say how many frames make a clip: give num_frames")
        check_clips(x, num_frames)
        y = x + self.motion(x, num_frames).to(x.dtype)
        return F.relu(y) if self.relu else y

    def motion(self, x: Float[Tensor, "bt c h w"], num_frames: int) -> Float[Tensor, "bt c h w"]:
        """What the block adds.

        Args:
            x: Features, frames folded clip by clip.
            num_frames: Frames in a clip.

        Returns:
            Motion features.
        """
        similarity = self.transformation(x, num_frames)
        if similarity.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            similarity = similarity.to(x.dtype)
        return self.integration(self.extraction(similarity), (x.shape[2], x.shape[3]))


def selfynet(
    backbone: str = "resnet50",
    num_frames: int = 8,
    num_classes: int = 174,
    *,
    shift: bool = True,
    dropout: float = 0.5,
    **options: Any,
) -> VideoResNet:
    """SELFYNet: a TSM-ResNet with a SELFY block after its second stage.

    Args:
        backbone: `resnet18`, `resnet34`, `resnet50` or `resnet101`.
        num_frames: Frames in a clip.
        num_classes: Classes; Something-Something has 174.
        shift: Temporal shift in every residual block (TSM); without it the network is TSN.
        dropout: Before the classifier.
        **options: Of the [`SELFYBlock`][saccade.action.selfy.SELFYBlock].

    Returns:
        The network, to be called with clips (b, 3, t, h, w).

    Raises:
        ValueError: Another backbone, or no frames.

    Note:
        Source: arXiv:2102.07092, section 4.1.

    Example:
        >>> selfynet("resnet18", num_classes=5)(torch.randn(1, 3, 2, 64, 64)).shape
        torch.Size([1, 5])
    """
    if num_frames < 1:
        raise ValueError(f"num_frames has to be at least 1, not {num_frames}")
    return video_resnet(
        backbone,
        num_classes,
        num_frames=num_frames,
        shift=8 if shift else None,
        make_slot=lambda channels: SELFYBlock(channels, **options),
        dropout=dropout,
    )


def insert_selfy(backbone: nn.Module, num_frames: int, after: str = "layer2", **options: Any) -> Undo:
    """Put a block behind a stage of any video network, in place.

    Args:
        backbone: A 2D network on folded frames or a 3D network, whose stages are sequences of residual blocks; or a
            [`VideoTransformer`][saccade.nn.video_vit.VideoTransformer], where the class token passes by.
        num_frames: Frames of a clip.
        after: Name of the stage, the paper's being the second; of a transformer, of a block such as `blocks.5`.
        **options: Of the [`SELFYBlock`][saccade.action.selfy.SELFYBlock].

    Returns:
        Calling it takes the block out.

    Raises:
        ValueError: No such stage, or options that fit no block.

    Example:
        >>> from saccade.nn.r2plus1d import R2Plus1D
        >>> network = R2Plus1D(5, layers=(1, 1), stage_widths=(8, 16))
        >>> undo = insert_selfy(network, num_frames=4, hidden_channels=8)
        >>> network(torch.randn(1, 3, 4, 64, 64)).shape
        torch.Size([1, 5])
    """
    block: nn.Module
    if isinstance(backbone, VideoTransformer):
        get_module(backbone, after)
        block = SELFYBlock(backbone.norm.normalized_shape[0], **{"relu": False, **options})
        wrapped: nn.Module = OnTokens(block, num_frames // backbone.tubelet)
    else:
        block = SELFYBlock(width_of(get_module(backbone, after)), **options)
        wrapped = OnClips(block, num_frames)
    return insert_after(backbone, after, wrapped, as_name="selfy")


def _conv2d(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
