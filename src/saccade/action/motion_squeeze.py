"""MotionSqueeze: motion features for a 2D video network, learnt from the action label alone (arXiv:2007.09933).

A network that sees frames one by one knows what is in the picture and not where it goes. MotionSqueeze is a block that
sits once in its middle and finds that out by matching: each position of a feature map looks for itself in a window of
the next frame's map. Three steps, as in section 3 of the paper:

1. *Correlation.* A 1x1 convolution reduces the features, they are scaled to unit length, and
   [`local_correlation`][saccade.ops.correlation.local_correlation] compares each position with `window x window`
   displacements in the next frame; negative similarities are cut.
2. *Displacement.* [`kernel_soft_argmax`][saccade.action.motion_squeeze.kernel_soft_argmax] weights the similarities by
   a Gaussian around their maximum and takes the mean displacement under a sharp softmax: one flow vector a position,
   differentiable, and a confidence, which is the maximum itself.
3. *Features.* Four depth-wise separable convolutions turn the three maps (x, y, confidence) into as many channels as
   the network has, and the result is added to its features. The last frame, which has no successor, borrows the maps
   of the pair before it.

The extra cost in a ResNet-50 is about 3 % of the operations and 1 % of the parameters; nothing needs optical flow, and
the recovered flow can be looked at. It helps where motion decides (Something-Something), more so the less the network
knows of time otherwise: TSN gains far more than TSM. It needs displacements of about one cell of the feature map or
more, which is 8 pixels in a ResNet after its second stage: motion far below that leaves nothing to match.

How it is used: build a network with [`msnet`][saccade.action.motion_squeeze.msnet], or hand a `MotionSqueeze` to the
`slot` of a [`VideoResNet`][saccade.nn.video_resnet.VideoResNet], or call it on the folded frames of any network. Under
autocast the convolutions run in the lower precision; matching is done in float32, for a softmax at temperature 0.01
would turn rounding of the similarities into displacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.video_resnet import VideoResNet, video_resnet
from saccade.ops.correlation import l2_normalize, local_correlation
from saccade.ops.temporal import check_clips


class Motion(NamedTuple):
    """What the block sees between neighbouring frames, (b*(t-1), ...).

    Attributes:
        flow: Displacement (x, y) in units of the window's radius, in [-1, 1]; 1 is `window // 2 * dilation` cells.
        confidence: Similarity at the best displacement, in [0, 1].
    """

    flow: Float[Tensor, "pairs 2 h w"]
    confidence: Float[Tensor, "pairs 1 h w"]


def gaussian_weighted(
    correlation: Float[Tensor, "b p p h w"], sigma: float = 5.0
) -> tuple[Float[Tensor, "b p p h w"], Float[Tensor, "b 1 h w"]]:
    """Weight similarities by a Gaussian around their maximum; the maximum's place is constant for the gradient.

    Args:
        correlation: Similarities over vertical and horizontal displacements.
        sigma: Width of the Gaussian, in displacements.

    Returns:
        The weighted similarities, and the maximum of the unweighted ones. Among equal ones the first counts.

    Example:
        >>> weighted, confidence = gaussian_weighted(torch.ones(1, 3, 3, 1, 1), sigma=1.0)
        >>> weighted[0, :, :, 0, 0]  # all are equal: the first is the middle of the Gaussian
        tensor([[1.0000, 0.6065, 0.1353],
                [0.6065, 0.3679, 0.0821],
                [0.1353, 0.0821, 0.0183]])
    """
    window = correlation.shape[1]
    confidence, best = correlation.flatten(1, 2).max(1, keepdim=True)
    cell = torch.arange(window, device=correlation.device).view(1, window, 1, 1)

    def bell(middle: Tensor) -> Tensor:
        return ((cell - middle).to(correlation.dtype).square() * (-0.5 / sigma**2)).exp()

    gaussian = bell(best // window).unsqueeze(2) * bell(best % window).unsqueeze(1)
    return gaussian * correlation, confidence


def kernel_soft_argmax(
    correlation: Float[Tensor, "b *displacements h w"],
    sigma: float = 5.0,
    temperature: float = 0.01,
    normalize: bool = True,
) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b 1 h w"]]:
    """Mean displacement under a softmax of the similarities, which a Gaussian narrows to around their maximum.

    With `g` the Gaussian around the best displacement, `p = softmax(g * correlation / temperature)` and the flow is
    the mean of the displacements under `p`. The Gaussian multiplies before the softmax: far displacements keep the
    weight of a zero similarity. Where all similarities are 0 (no texture) the flow and the confidence are 0.

    Args:
        correlation: Similarities, (b, p, p, h, w) or (b, p*p, h, w) with vertical displacements first; p is odd.
        sigma: Width of the Gaussian, in displacements.
        temperature: Of the softmax.
        normalize: Flow in units of the window's radius, in [-1, 1]; else in displacements.

    Returns:
        Flow (x, y), and confidence: the largest similarity.

    Raises:
        TypeError: Not a floating-point tensor.
        ValueError: `sigma` or `temperature` is not positive, or the window is not an odd square.

    Note:
        Source: arXiv:2007.09933, section 3.2, equations 3 to 5.

    Example:
        >>> correlation = torch.zeros(1, 5, 5, 1, 1)
        >>> correlation[0, 2, 4] = 1  # two to the right
        >>> flow, confidence = kernel_soft_argmax(correlation, normalize=False)
        >>> flow.flatten().round(decimals=3).abs(), confidence.item()
        (tensor([2., 0.]), 1.0)
    """
    if not correlation.is_floating_point():
        raise TypeError(f"correlation has to be a floating-point tensor, not {correlation.dtype}")
    _check_positive(sigma=sigma, temperature=temperature)
    if correlation.ndim == 4:
        window = round(correlation.shape[1] ** 0.5)
        if window * window == correlation.shape[1]:
            correlation = correlation.unflatten(1, (window, window))
    if correlation.ndim != 5 or correlation.shape[1] != correlation.shape[2] or correlation.shape[1] % 2 == 0:
        raise ValueError(
            f"correlation has to be (b, p, p, h, w) or (b, p*p, h, w) with an odd p, not {tuple(correlation.shape)}"
        )
    window = correlation.shape[1]
    weighted, confidence = gaussian_weighted(correlation, sigma)
    p = (weighted * (1 / temperature)).flatten(1, 2).softmax(1)
    offset = torch.arange(window, device=p.device, dtype=p.dtype) - window // 2
    if normalize:
        offset = offset / max(window // 2, 1)
    offsets = torch.stack([offset.repeat(window), offset.repeat_interleave(window)])  # (2, p*p): x, y
    flow = (offsets @ p.flatten(2)).unflatten(2, p.shape[2:])
    return flow, confidence


class MotionSqueeze(nn.Module):
    """Adds motion features to the features of a 2D video network: a drop-in block.

    Args:
        channels: Channels of the features.
        reduced_channels: Channels that are matched.
        window: Side of the window of displacements, odd; 15 reaches 7 cells.
        sigma: Width of the Gaussian of the soft-argmax, in displacements.
        temperature: Of its softmax.
        hidden: Channels between the depth-wise separable convolutions.
        dilation: Step between neighbouring displacements, in cells.

    Raises:
        ValueError: An even window, or a size, width or temperature that is not positive.

    Note:
        Source: arXiv:2007.09933, section 3; initialisation and layer sizes as in the authors' code.

    Example:
        >>> block = MotionSqueeze(channels=32, reduced_channels=16, window=9)
        >>> features = torch.randn(2 * 4, 32, 14, 14)  # two clips of four frames
        >>> y, motion = block(features, num_frames=4, return_motion=True)
        >>> y.shape, motion.flow.shape
        (torch.Size([8, 32, 14, 14]), torch.Size([6, 2, 14, 14]))
    """

    def __init__(
        self,
        channels: int,
        reduced_channels: int = 64,
        window: int = 15,
        sigma: float = 5.0,
        temperature: float = 0.01,
        hidden: Sequence[int] = (16, 32, 64),
        dilation: int = 1,
    ) -> None:
        super().__init__()
        _check_positive(channels=channels, reduced_channels=reduced_channels, sigma=sigma, temperature=temperature)
        _check_positive(dilation=dilation, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
        if window < 3 or window % 2 == 0:
            raise ValueError(f"window has to be odd and at least 3, not {window}")
        self.channels, self.window, self.dilation = channels, window, dilation
        self.sigma, self.temperature = sigma, temperature
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, reduced_channels, 1, bias=False), nn.BatchNorm2d(reduced_channels), nn.ReLU()
        )
        widths = (3, *hidden, channels)
        self.transform = nn.Sequential(
            *(_separable(i, o, 7 if n == 0 else 3) for n, (i, o) in enumerate(pairwise(widths)))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, x: Float[Tensor, "bt c h w"], num_frames: int, return_motion: bool = False
    ) -> Float[Tensor, "bt c h w"] | tuple[Float[Tensor, "bt c h w"], Motion]:
        """Add motion features.

        Args:
            x: Features, frames folded clip by clip.
            num_frames: Frames in a clip, at least 2.
            return_motion: Give flow and confidence too.

        Returns:
            Features of the same shape; with `return_motion` a pair of them and the motion.

        Raises:
            TypeError: Not a floating-point tensor.
            ValueError: Fewer than two frames, a batch that is no multiple of them, or another number of channels.
        """
        if not x.is_floating_point():
            raise TypeError(f"features have to be a floating-point tensor, not {x.dtype}")
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"features have to be (b*t, {self.channels}, h, w), not {tuple(x.shape)}")
        check_clips(x, num_frames, least=2)
        motion = self.motion(x, num_frames)
        maps = torch.cat(motion, dim=1).unflatten(0, (-1, num_frames - 1))
        maps = torch.cat([maps, maps[:, -1:]], dim=1).flatten(0, 1)
        y = x + self.transform(maps.to(x.dtype))
        return (y, motion) if return_motion else y

    def motion(self, x: Float[Tensor, "bt c h w"], num_frames: int) -> Motion:
        """Flow and confidence between neighbouring frames.

        Args:
            x: Features, frames folded clip by clip.
            num_frames: Frames in a clip, at least 2.

        Returns:
            The motion of each of the `b * (t - 1)` pairs.
        """
        reduced = self.reduce(x)
        with torch.autocast(x.device.type, enabled=False):
            exact = reduced.float() if reduced.dtype in (torch.float16, torch.bfloat16) else reduced
            clips = l2_normalize(exact).unflatten(0, (-1, num_frames))
            a, b = clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)
            correlation = F.relu(local_correlation(a, b, self.window, self.dilation))
            return Motion(*kernel_soft_argmax(correlation, self.sigma, self.temperature))


def msnet(
    backbone: str = "resnet50",
    num_frames: int = 8,
    num_classes: int = 174,
    *,
    shift: bool = True,
    dropout: float = 0.5,
) -> VideoResNet:
    """MSNet: a TSM-ResNet with a MotionSqueeze block after its second stage.

    Args:
        backbone: `resnet18`, `resnet34`, `resnet50` or `resnet101`.
        num_frames: Frames in a clip.
        num_classes: Classes; Something-Something has 174.
        shift: Temporal shift in every residual block (TSM); without it the network is TSN.
        dropout: Before the classifier.

    Returns:
        The network, to be called with clips (b, 3, t, h, w).

    Raises:
        ValueError: Another backbone, or fewer than two frames.

    Note:
        Source: arXiv:2007.09933, section 3.4.

    Example:
        >>> msnet("resnet18", num_classes=5)(torch.randn(1, 3, 2, 64, 64)).shape
        torch.Size([1, 5])
    """
    if num_frames < 2:
        raise ValueError(f"num_frames has to be at least 2 (motion takes two frames), not {num_frames}")
    return video_resnet(
        backbone,
        num_classes,
        num_frames=num_frames,
        shift=8 if shift else None,
        make_slot=MotionSqueeze,
        dropout=dropout,
    )


def _separable(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _check_positive(**values: float | int) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} has to be positive, not {value}")
