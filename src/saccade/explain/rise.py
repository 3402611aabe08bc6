"""RISE: random masks, weighted by how the model likes what they leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.explain.backprop import check_images, finished
from saccade.explain.maps import Resize
from saccade.explain.targets import Target, check_output, class_indices
from saccade.surgery import frozen


def upsample_grid(
    grid: Float[Tensor, "m 1 s s2"], size: tuple[int, int], offsets: Int[Tensor, "m 2"] | None = None
) -> Float[Tensor, "m 1 h w"]:
    """Blow coarse grids up to smooth masks, and cut each at its own offset.

    The grid is mirrored by one cell, interpolated bilinearly to cell' pixels a cell, and its inner part of
    size + cell pixels kept, cell = ceil(size / s), cell' = ceil((size + cell) / s). All of this is linear, so a mask is
    grid between two small matrices, whose rows start at the mask's offset: no mask is ever larger than the image.

    Args:
        grid: Cells, at least 2 x 2.
        size: Height and width of the image.
        offsets: (row, column) of each mask's cut, each below the cell's size. Without, the uncut masks of the size
            size + cell are given.

    Returns:
        Masks.

    Example:
        >>> upsample_grid(torch.rand(4, 1, 5, 5), (21, 21)).shape
        torch.Size([4, 1, 26, 26])
    """
    padded = F.pad(grid, (1, 1, 1, 1), mode="reflect")
    sides = []
    for axis, (pixels, cells) in enumerate(zip(size, grid.shape[-2:], strict=True)):
        cell = math.ceil(pixels / cells)
        up = pixels + cell
        fine = math.ceil(up / cells)
        identity = torch.eye(cells + 2, dtype=grid.dtype, device=grid.device)
        matrix = F.interpolate(identity[None], size=fine * (cells + 2), mode="linear", align_corners=False)[0].mT
        matrix = matrix[fine : fine + up]  # (up, cells + 2)
        if offsets is None:
            sides.append(matrix.expand(len(grid), -1, -1))
        else:
            rows = offsets[:, axis, None] + torch.arange(pixels, device=grid.device)
            sides.append(matrix[rows])
    return (sides[0] @ padded[:, 0] @ sides[1].mT).unsqueeze(1)


class RiseMasks:
    """The random masks of RISE, in chunks, from a generator of their own; the global one is untouched.

    The generator lives on the CPU, so that a seed gives the same masks on every device.

    Args:
        size: Height and width of the image.
        num_masks: How many.
        cells: Grid cells per side.
        p: Probability that a cell is kept.
        batch: Masks per chunk; the draws of a chunk are made together, so another chunk size gives other masks.
        seed: Of the generator.

    Raises:
        ValueError: A number that makes no sense.
    """

    def __init__(
        self,
        size: tuple[int, int],
        num_masks: int = 8000,
        cells: int = 7,
        p: float = 0.5,
        batch: int = 32,
        seed: int = 0,
    ) -> None:
        if min(num_masks, batch) < 1 or cells < 2 or not 0 < p <= 1:
            raise ValueError(
                f"num_masks {num_masks}, batch {batch}, cells {cells}, p {p}: wanted positive counts, 2 or more cells, "
                "and a probability in (0, 1]"
            )
        self.size, self.num_masks, self.cells, self.p, self.batch, self.seed = size, num_masks, cells, p, batch, seed

    def chunks(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Iterator[Float[Tensor, "m 1 h w"]]:
        """Draw.

        Args:
            device: Where the masks are to be.
            dtype: Their type.

        Yields:
            Masks (up to `batch`, 1, h, w) in [0, 1].
        """
        generator = torch.Generator().manual_seed(self.seed)
        cell = [math.ceil(side / self.cells) for side in self.size]
        for first in range(0, self.num_masks, self.batch):
            count = min(self.batch, self.num_masks - first)
            grid = torch.rand(count, 1, self.cells, self.cells, generator=generator) < self.p
            offsets = torch.stack([torch.randint(side, (count,), generator=generator) for side in cell], dim=1)
            yield upsample_grid(grid.to(device, dtype), self.size, offsets.to(device))


def rise_maps(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    *,
    num_masks: int = 8000,
    cells: int = 7,
    p: float = 0.5,
    batch: int = 32,
    seed: int = 0,
    filter_masks: Float[Tensor, "m 1 h w"] | None = None,
    target: Target | None = None,
    progress: Callable[[float], None] | None = None,
) -> Float[Tensor, "n k h w"]:
    """RISE maps of all classes: S[n, k] = mean over masks of sigmoid(logit k of the masked image) * mask.

    Divided by the number of masks, not by p; sigmoid, for several classes may be present; logits at several positions
    are averaged first.

    Args:
        model: Gives logits.
        image: Images.
        num_masks: Number of masks; with `filter_masks` it has to be theirs.
        cells: Grid cells per side.
        p: Probability that a cell is kept.
        batch: Masks per pass.
        seed: Of the masks.
        filter_masks: Masks to use instead of random ones.
        target: Compute one class alone (for all images or one for each): k is 1 then, and the memory small.
        progress: Called with the share that is done.

    Returns:
        Maps.

    Raises:
        TypeError: The target is no class index.
        ValueError: Not float images, a number of given masks other than `num_masks`, settings that make no sense.

    Source:
        arXiv:1806.07421.
    """
    check_images(image)
    size = (image.shape[-2], image.shape[-1])
    if filter_masks is not None:
        if filter_masks.shape[1:] != (1, *size):
            raise ValueError(f"masks have to be (m, 1, {size[0]}, {size[1]}), got {tuple(filter_masks.shape)}")
        if len(filter_masks) != num_masks:
            raise ValueError(f"{len(filter_masks)} masks were given, num_masks says {num_masks}")
        chunks = iter(filter_masks.to(image).split(batch))
    else:
        chunks = RiseMasks(size, num_masks, cells, p, batch, seed).chunks(image.device, image.dtype)
    total: Tensor | None = None
    done = 0
    with frozen(model), torch.no_grad():
        for masks in chunks:
            flat = masks.flatten(1)
            parts = []
            for i, one in enumerate(image):
                output = check_output(model(one * masks))
                scores = (output.flatten(2).mean(2) if output.ndim > 2 else output).sigmoid()
                if target is not None:
                    index = class_indices(target, len(image), scores.shape[1], scores.device)[i]
                    scores = scores[:, index : index + 1]
                parts.append(scores.to(flat.dtype).mT @ flat)
            part = torch.stack(parts)
            total = part if total is None else total.add_(part)
            done += len(masks)
            if progress is not None:
                progress(done / num_masks)
    if total is None:
        raise ValueError("no masks")
    return (total / num_masks).unflatten(2, size)


def rise(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    *,
    layer: str | None = None,
    resize: Resize = False,
    smooth: float = 0.0,
    num_masks: int = 8000,
    cells: int = 7,
    p: float = 0.5,
    batch: int = 32,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Float[Tensor, "n 1 H W"]:
    """RISE map of the target.

    Args:
        model: Gives logits.
        image: Images.
        target: Class.
        layer: Has to be `None`: RISE masks the input.
        resize: `True` or (height, width).
        smooth: Sigma as a share of the longer side.
        num_masks: Number of masks.
        cells: Grid cells per side.
        p: Probability that a cell is kept.
        batch: Masks per pass.
        seed: Of the masks.
        progress: Called with the share that is done.

    Returns:
        Maps.

    Raises:
        TypeError: As `rise_maps`.
        ValueError: As `rise_maps`, or a layer is named.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> rise(model, torch.rand(1, 3, 16, 16), 2, num_masks=8).shape
        torch.Size([1, 1, 16, 16])
    """
    if layer is not None:
        raise ValueError(f"RISE masks the input and reads no layer; got layer {layer!r}")
    maps = rise_maps(
        model, image, num_masks=num_masks, cells=cells, p=p, batch=batch, seed=seed, target=target, progress=progress
    )
    return finished(maps, image, resize, smooth)
