"""From decoded frames to normalised clips: crops, flips and scaling that are the same for all frames of a clip.

All take frames as a tensor (t, c, h, w). Random ones draw from torch's global generator, as torchvision's do, so that
one seed decides; a data set that needs each sample to be a function of its index seeds that generator by it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from saccade.nn.input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

Label = int | tuple[int, ...]
"""One class, or several such as verb and noun."""


def uniform_crop_corner(height: int, width: int, size: int, view: int) -> tuple[int, int]:
    """Top-left corner of one of three square views: left, centre, right of a wide frame; top to bottom of a tall one.

    Args:
        height: Of the frame.
        width: Of the frame.
        size: Side of the view.
        view: 0, 1 or 2.

    Returns:
        (y, x).

    Raises:
        ValueError: Another view, or a view larger than the frame.

    Example:
        >>> [uniform_crop_corner(256, 341, 256, view) for view in range(3)]
        [(0, 0), (0, 43), (0, 85)]
    """
    if view not in (0, 1, 2):
        raise ValueError(f"view has to be 0, 1 or 2, not {view}")
    if size < 1 or size > min(height, width):
        raise ValueError(f"a view of {size} pixels does not fit a frame of {height} x {width}")
    y, x = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        y = (0, y, height - size)[view]
    else:
        x = (0, x, width - size)[view]
    return y, x


class CaffeInput(nn.Module):
    """RGB in 0..1 to what networks of Caffe take: BGR in 0..255 minus the mean.

    Args:
        mean: Of blue, green and red, in 0..255.

    Example:
        >>> CaffeInput((104.0, 117.0, 128.0))(torch.ones(3, 1, 1)).flatten()
        tensor([151., 138., 127.])
    """

    def __init__(self, mean: tuple[float, float, float]) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, image: Tensor) -> Tensor:
        """An image (3, h, w)."""
        return image.flip(0) * 255 - torch.tensor(self.mean, device=image.device)[:, None, None]

    def extra_repr(self) -> str:
        """The mean, since two networks may differ in it alone."""
        return f"mean={self.mean}"


def short_side(frames: Tensor, size: int) -> Tensor:
    """Scale frames so that their shorter side has `size` pixels.

    Args:
        frames: (t, c, h, w).
        size: Pixels.

    Returns:
        Frames of the same kind.

    Example:
        >>> short_side(torch.zeros(2, 3, 20, 30), 10).shape
        torch.Size([2, 3, 10, 15])
    """
    height, width = frames.shape[-2:]
    if min(height, width) == size:
        return frames
    if height < width:
        return tvf.resize(frames, [size, math.floor(width / height * size)], antialias=True)
    return tvf.resize(frames, [math.floor(height / width * size), size], antialias=True)


class UniformCrop(nn.Module):
    """Scale the shorter side to `size` and take views: the centre, or all three.

    Args:
        size: Side of a view in pixels.
        views: 1 (the centre) or 3 (left, centre, right, or top to bottom).
        resize: Pixels of the shorter side before cropping; `None`: `size`.

    Example:
        >>> UniformCrop(8, views=3)(torch.zeros(4, 3, 8, 12)).shape
        torch.Size([3, 4, 3, 8, 8])
    """

    def __init__(self, size: int, views: int = 1, resize: int | None = None) -> None:
        super().__init__()
        if views not in (1, 3):
            raise ValueError(f"views has to be 1 or 3, not {views}")
        if resize is not None and resize < size:
            raise ValueError(f"the shorter side is scaled to {resize} pixels, which is less than the view's {size}")
        self.size, self.views, self.resize = size, views, resize or size

    def forward(self, frames: Tensor) -> Tensor:
        """Args: `frames` (t, c, h, w). Returns: views (v, t, c, size, size)."""
        frames = short_side(frames, self.resize)
        height, width = frames.shape[-2:]
        corners = [uniform_crop_corner(height, width, self.size, v) for v in ((1,) if self.views == 1 else (0, 1, 2))]
        return torch.stack([frames[..., y : y + self.size, x : x + self.size] for y, x in corners])


class GroupMultiScaleCrop(nn.Module):
    """TSN's training crop: one of several sizes at one of 13 places, scaled to `size`; the same for all frames.

    The base is the shorter side; crop height and width are the base times two of `scales` whose places in that list
    differ by at most `max_distort`.

    Args:
        size: Side of the result in pixels.
        scales: Shares of the base.
        max_distort: How far apart the two scales may be.
        resize: (height, width) to scale to first, as the SELFY and MSNet recipes do with (240, 320).

    Note:
        Source: arXiv:1608.00859, section 3.3, and the TSM code.

    Example:
        >>> GroupMultiScaleCrop(16)(torch.zeros(4, 3, 24, 32)).shape
        torch.Size([4, 3, 16, 16])
    """

    def __init__(
        self,
        size: int,
        scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66),
        max_distort: int = 1,
        resize: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scales, self.max_distort, self.resize = size, tuple(scales), max_distort, resize

    def forward(self, frames: Tensor) -> Tensor:
        """Args: `frames` (t, c, h, w). Returns: (t, c, size, size)."""
        if self.resize is not None:
            frames = tvf.resize(frames, list(self.resize), antialias=True)
        height, width = frames.shape[-2:]
        sizes = crop_sizes(height, width, self.size, self.scales, self.max_distort)
        crop_height, crop_width = sizes[int(torch.randint(len(sizes), ()))]
        places = crop_corners(height, width, crop_height, crop_width)
        y, x = places[int(torch.randint(len(places), ()))]
        return tvf.resized_crop(frames, y, x, crop_height, crop_width, [self.size, self.size], antialias=True)


def crop_sizes(height: int, width: int, size: int, scales: Sequence[float], max_distort: int) -> list[tuple[int, int]]:
    """The (height, width) pairs of a multi-scale crop; sizes within 3 pixels of `size` become `size`.

    Args:
        height: Of the frame.
        width: Of the frame.
        size: Side of the result.
        scales: Shares of the shorter side.
        max_distort: How far apart in `scales` the two may be.

    Returns:
        Pairs of pixels.

    Example:
        >>> crop_sizes(100, 200, 50, (1.0, 0.5), max_distort=1)
        [(100, 100), (100, 50), (50, 100), (50, 50)]
    """
    base = min(height, width)
    sides = [size if abs(int(base * scale) - size) < 3 and size <= base else int(base * scale) for scale in scales]
    return [
        (h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= max_distort and min(h, w) > 0
    ]


def crop_corners(height: int, width: int, crop_height: int, crop_width: int) -> list[tuple[int, int]]:
    """The 13 places of a multi-scale crop: corners, centre, middles of the edges, quarter points.

    Args:
        height: Of the frame.
        width: Of the frame.
        crop_height: Of the crop.
        crop_width: Of the crop.

    Returns:
        (y, x) of the top-left corners, on a grid of quarters.

    Example:
        >>> len(crop_corners(240, 320, 224, 224)), crop_corners(240, 320, 224, 224)[4]
        (13, (8, 48))
    """
    dy, dx = (height - crop_height) // 4, (width - crop_width) // 4
    grid = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    return [(dy * i, dx * j) for i, j in grid]


class ShortSideCrop(nn.Module):
    """SlowFast's training crop: the shorter side scaled to a random size, then a random square.

    Args:
        size: Side of the square in pixels.
        shortest: Least and greatest length of the shorter side.
        inverse: Draw uniformly in 1 / length instead of in length.

    Example:
        >>> ShortSideCrop(8, (8, 12))(torch.zeros(4, 3, 16, 24)).shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(self, size: int, shortest: tuple[int, int] = (256, 320), inverse: bool = False) -> None:
        super().__init__()
        if shortest[0] < size or shortest[1] < shortest[0]:
            raise ValueError(
                f"the shorter side goes from {shortest[0]} to {shortest[1]}: need {size} <= first <= second"
            )
        self.size, self.shortest, self.inverse = size, shortest, inverse

    def forward(self, frames: Tensor) -> Tensor:
        """Args: `frames` (t, c, h, w). Returns: (t, c, size, size)."""
        low, high = self.shortest
        draw = float(torch.rand(()))
        side = round(1 / (1 / high + draw * (1 / low - 1 / high)) if self.inverse else low + draw * (high - low))
        frames = short_side(frames, side)
        y = int(torch.randint(frames.shape[-2] - self.size + 1, ()))
        x = int(torch.randint(frames.shape[-1] - self.size + 1, ()))
        return frames[..., y : y + self.size, x : x + self.size]


def augmentation(kind: Literal["none", "colour", "randaugment", "autoaugment"]) -> nn.Module | None:
    """Changes of colour and shape for training, the same for all frames of a clip.

    Args:
        kind: `none`; `colour`: brightness, contrast and saturation by up to 0.4, for four of five clips; `randaugment`:
            two of torchvision's operations at full strength; `autoaugment`: one of AutoAugment's policies for ImageNet.

    Returns:
        Called with uint8 frames (t, c, h, w); `None` for none.

    Raises:
        ValueError: Another kind.

    Note:
        Source: the settings of arXiv:2106.05392's code, whose RandAugment is at its maximum; AutoAugment
        (arXiv:1805.09501) is used by arXiv:2112.04710.

    Example:
        >>> augmentation("colour")(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([4, 3, 8, 8])
    """
    if kind not in ("none", "colour", "randaugment", "autoaugment"):
        raise ValueError(f"augmentations are 'none', 'colour', 'randaugment' and 'autoaugment', not {kind!r}")
    if kind == "none":
        return None
    if kind == "colour":
        return v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4)], p=0.8)
    if kind == "autoaugment":
        return v2.AutoAugment()
    return v2.RandAugment(num_ops=2, magnitude=30, num_magnitude_bins=31)


class LabelAwareFlip(nn.Module):
    """Mirror a clip with a probability, but keep its label true.

    Args:
        probability: Of mirroring.
        swap: Label to the label of the mirrored clip ("to the left" to "to the right").
        never: Labels that are not mirrored.

    Example:
        >>> LabelAwareFlip(1.0, swap={0: 1, 1: 0})(torch.tensor([[[[1, 2]]]]), 0)
        (tensor([[[[2, 1]]]]), 1)
    """

    def __init__(
        self, probability: float = 0.5, swap: Mapping[int, int] | None = None, never: Collection[int] = ()
    ) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability has to be in [0, 1], not {probability}")
        self.probability, self.swap, self.never = probability, dict(swap or {}), frozenset(never)

    def forward(self, frames: Tensor, label: Label) -> tuple[Tensor, Label]:
        """Args: `frames` (t, c, h, w) and their label. Returns: both, mirrored or not."""
        if label in self.never or float(torch.rand(())) >= self.probability:
            return frames, label
        return frames.flip(-1), label if isinstance(label, tuple) else self.swap.get(label, label)


class Normalize(nn.Module):
    """uint8 frames (..., t, c, h, w) to normalised clips (..., c, t, h, w).

    Args:
        mean: Of the channels, for values in [0, 1].
        std: Of the channels.
        bgr: Turn red, green, blue into blue, green, red first.

    Example:
        >>> Normalize((0.5,) * 3, (0.5,) * 3)(torch.full((4, 3, 2, 2), 255, dtype=torch.uint8))[:, 0, 0, 0]
        tensor([1., 1., 1.])
    """

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, bgr: bool = False
    ) -> None:
        super().__init__()
        self.mean, self.std, self.bgr = tuple(mean), tuple(std), bgr

    def forward(self, frames: Tensor) -> Tensor:
        """Args: `frames` (..., t, c, h, w). Returns: (..., c, t, h, w)."""
        frames = frames.flip(-3) if self.bgr else frames
        scaled = v2.functional.normalize(v2.functional.to_dtype(frames, torch.float32, scale=True), self.mean, self.std)
        return scaled.transpose(-4, -3).contiguous()


class TrainTransform(nn.Module):
    """Crop, flip, augment and normalise for training; without `crop` in the TSN family's way.

    Args:
        spec: What the model is fed.
        flip: Flip that knows the labels; `None`: never.
        resize: (height, width) to scale to before cropping; `None`: the frames as they are.
        crop: Another crop, such as [`ShortSideCrop`][saccade.data.transforms.ShortSideCrop].
        augment: Changes of colour and shape, called with uint8 frames (t, c, h, w), the same for all of a clip.
    """

    def __init__(
        self,
        spec: InputSpec,
        flip: LabelAwareFlip | None = None,
        resize: tuple[int, int] | None = (240, 320),
        crop: nn.Module | None = None,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.crop = crop or GroupMultiScaleCrop(spec.size, resize=resize)
        self.flip = flip
        self.augment = augment or nn.Identity()
        self.normalize = Normalize(spec.mean, spec.std, spec.channels == "BGR")

    def forward(self, frames: Tensor, label: Label) -> tuple[Tensor, Label]:
        """Args: `frames` uint8 (t, c, h, w) and their label. Returns: a clip (c, t, h, w) and its label."""
        frames = self.augment(self.crop(frames))
        if self.flip is not None:
            frames, label = self.flip(frames, label)
        return self.normalize(frames), label


class EvalTransform(nn.Module):
    """Views of a clip for validation and test.

    Args:
        spec: What the model is fed.
        views: Crops of each clip, 1 or 3.
        resize: Pixels of the shorter side before cropping; `None`: 256 for 224, in proportion for other sizes.
    """

    def __init__(self, spec: InputSpec, views: int = 1, resize: int | None = None) -> None:
        super().__init__()
        self.crop = UniformCrop(spec.size, views, resize or round(spec.size * 256 / 224))
        self.normalize = Normalize(spec.mean, spec.std, spec.channels == "BGR")

    def forward(self, frames: Tensor) -> Tensor:
        """Args: `frames` uint8 (t, c, h, w). Returns: views (v, c, t, h, w)."""
        return self.normalize(self.crop(frames))
