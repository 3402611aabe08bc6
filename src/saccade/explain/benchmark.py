"""The pointing game on a whole data set, with the settings of the paper's benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.explain import backprop, excitation
from saccade.explain.datasets import Annotated, AnnotatedImages
from saccade.explain.extremal_perturbation import ExtremalPerturbation
from saccade.explain.maps import peak
from saccade.explain.pointing_game import PointingGame
from saccade.explain.rise import rise


class PointingGameBenchmark:
    """Scores maps on a data set: all images, and the difficult ones.

    An image and class is difficult when the class's objects cover less than a quarter of the image and another class
    is there too.

    Args:
        dataset: Images with masks.
        difficult: `False`: all pairs; `True`: the difficult ones, found from the masks; or a file of flags, a JSON
            object of image name to the difficult classes' indices. A pair of an image that the file does not name is
            kept.
        tolerance: In pixels of the original image.

    Raises:
        FileNotFoundError: No such file of flags.
        ValueError: It is malformed.

    Source:
        arXiv:1608.00507, section 4.
    """

    def __init__(
        self, dataset: AnnotatedImages, difficult: bool | str | Path = False, *, tolerance: float = 15
    ) -> None:
        self.dataset = dataset
        self.game = PointingGame(len(dataset.classes), tolerance)
        self.difficult = difficult is not False
        self._flags: dict[str, list[int]] | None = None
        if isinstance(difficult, str | Path):
            path = Path(difficult)
            if not path.is_file():
                raise FileNotFoundError(f"no file of difficult flags at {path}")
            try:
                self._flags = {name: [int(k) for k in labels] for name, labels in json.loads(path.read_text()).items()}
            except (json.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: wanted a JSON object of image name to class indices ({error})") from None

    def counts(self, item: Annotated, class_id: int) -> bool:
        """Whether a pair of image and class belongs to the part that is scored.

        Args:
            item: The image.
            class_id: One of its classes.

        Returns:
            Whether it counts.
        """
        if not self.difficult:
            return True
        if self._flags is not None:
            return item.name not in self._flags or class_id in self._flags[item.name]
        return len(item.masks) > 1 and float(item.masks[class_id].float().mean()) < 0.25

    def add(self, item: Annotated, class_id: int, saliency: Float[Tensor, "1 1 h w"] | None) -> int:
        """Score one map.

        Args:
            item: The image.
            class_id: The class that was asked for.
            saliency: Its map, of any size: it is upsampled to the original image. `None`: the image's centre, the
                baseline.

        Returns:
            1 for a hit, -1 for a miss, 0 where the pair does not count.

        Raises:
            ValueError: The class is not in the image.
        """
        if class_id not in item.masks:
            raise ValueError(f"{item.name} has no class {class_id}, it has {', '.join(map(str, item.masks))}")
        if not self.counts(item, class_id):
            return 0
        height, width = item.size
        if saliency is None:
            point: list[float] = [width / 2, height / 2]
        else:
            resized = F.interpolate(saliency, size=item.size, mode="bilinear", align_corners=False)
            point = peak(resized)[0].tolist()
        hit = self.game.evaluate(item.masks[class_id], point)
        self.game.aggregate(hit, class_id)
        return hit


@dataclass(frozen=True)
class BenchmarkSettings:
    """A run of the benchmark: what a recipe's YAML holds.

    Args:
        method: A name of `MAPS`, or `center`.
        arguments: Of the method, such as the layer.
        shorter_side: Of the images that the model sees, in pixels; `square` is there for RISE.
        square: Resize to a square instead.
        limit: Use the first images alone; `None`: all.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    shorter_side: int = 224
    square: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class BenchmarkResult:
    """Scores in percent.

    Args:
        all: Mean over classes, all pairs.
        difficult: Mean over classes, difficult pairs.
        pairs: Number of pairs.
        skipped: Images that could not be read.
    """

    all: float
    difficult: float
    pairs: int
    skipped: int


def extremal_map(model: nn.Module, image: Tensor, target: int, **settings: Any) -> Tensor:
    """The saliency map of an extremal perturbation: sum over areas, smoothed."""
    return ExtremalPerturbation(model, **settings).attribute(image, target).saliency


MAPS: dict[str, Callable[..., Tensor]] = {
    "gradient": backprop.gradient,
    "deconvnet": backprop.deconvnet,
    "guided_backprop": backprop.guided_backprop,
    "grad_cam": backprop.grad_cam,
    "linear_approx": backprop.linear_approx,
    "excitation_backprop": excitation.excitation_backprop,
    "contrastive_excitation_backprop": excitation.contrastive_excitation_backprop,
    "rise": rise,
    "extremal_perturbation": extremal_map,
}


def run_benchmark(
    model: nn.Module,
    dataset: AnnotatedImages,
    settings: BenchmarkSettings,
    *,
    normalise: Callable[[Tensor], Tensor],
    difficult: bool | str | Path = True,
    tolerance: float = 15,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> BenchmarkResult:
    """Score one method on a data set. An image that cannot be read is skipped and counted.

    Args:
        model: Gives logits of the data set's classes.
        dataset: Images with masks.
        settings: Method and sizes.
        normalise: From RGB in [0, 1] to what the model wants.
        difficult: Flags of the difficult part, see `PointingGameBenchmark`.
        tolerance: In pixels.
        device: Where to compute.
        progress: Called with the share that is done.

    Returns:
        Scores.

    Raises:
        ValueError: An unknown method, or an empty data set.
    """
    if settings.method != "center" and settings.method not in MAPS:
        raise ValueError(f"unknown method {settings.method!r}: wanted center or one of {', '.join(MAPS)}")
    every = PointingGameBenchmark(dataset, tolerance=tolerance)
    hard = PointingGameBenchmark(dataset, difficult, tolerance=tolerance)
    model = model.to(device).eval()
    total = len(dataset) if settings.limit is None else min(settings.limit, len(dataset))
    if total == 0:
        raise ValueError("the data set has no images")
    pairs = skipped = 0
    for i, item in zip(range(total), dataset, strict=False):
        try:
            image = item.image() if settings.method != "center" else torch.zeros(3, 2, 2)
        except (ValueError, FileNotFoundError):
            skipped += 1
            continue
        shown = normalise(resized(image, settings)).unsqueeze(0).to(device)
        for class_id in item.masks:
            saliency = None
            if settings.method != "center":
                saliency = MAPS[settings.method](model, shown, class_id, **settings.arguments)
            every.add(item, class_id, saliency)
            hard.add(item, class_id, saliency)
            pairs += 1
        if progress is not None:
            progress((i + 1) / total)
    return BenchmarkResult(100 * every.game.accuracy, 100 * hard.game.accuracy, pairs, skipped)


def resized(image: Float[Tensor, "3 h w"], settings: BenchmarkSettings) -> Float[Tensor, "3 H W"]:
    """Bilinear without antialiasing, as the checkpoints were evaluated.

    Args:
        image: RGB.
        settings: Sizes.

    Returns:
        The image that the model sees.
    """
    height, width = image.shape[-2:]
    side = settings.shorter_side
    scale = side / min(height, width)
    size = (side, side) if settings.square else (round(height * scale), round(width * scale))
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
