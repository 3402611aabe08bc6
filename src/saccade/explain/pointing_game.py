"""The pointing game: does a map peak on the object?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


class PointingGame:
    """Counts hits and misses of points on objects.

    Args:
        num_classes: Number of classes.
        tolerance: A point hits where some pixel of the object's mask lies strictly closer than this, in pixels.

    Raises:
        ValueError: No classes, or a tolerance that is not positive.

    Source:
        arXiv:1608.00507, section 4; as in the library of arXiv:1910.08485.

    Example:
        >>> game = PointingGame(2, tolerance=2)
        >>> mask = torch.zeros(8, 8, dtype=torch.bool)
        >>> mask[2:4, 2:4] = True
        >>> game.aggregate(game.evaluate(mask, (4, 3)), 0), game.aggregate(game.evaluate(mask, (7, 7)), 0)
        (None, None)
        >>> game.class_accuracies
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """

    def __init__(self, num_classes: int, tolerance: float = 15) -> None:
        if num_classes < 1 or not tolerance > 0:
            raise ValueError(f"num_classes {num_classes}, tolerance {tolerance}: wanted positive numbers")
        self.num_classes = num_classes
        self.tolerance = tolerance
        self.hits = torch.zeros(num_classes, dtype=torch.float64)
        self.misses = torch.zeros(num_classes, dtype=torch.float64)

    def evaluate(self, mask: Bool[Tensor, "h w"], point: Sequence[int | float]) -> int:
        """Whether a point hits.

        Args:
            mask: The object (or all objects of the class).
            point: (x, y) in pixels.

        Returns:
            1 for a hit, -1 for a miss.

        Raises:
            ValueError: The mask is not 2-D bool, or the point lies outside it.
        """
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.dtype != torch.bool:
            what = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"the mask has to be a bool tensor (h, w), got {what}")
        x, y = (float(value) for value in point)
        height, width = mask.shape
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point ({x:g}, {y:g}) lies outside the image of {width} x {height} pixels")
        reach = math.ceil(self.tolerance)
        top, left = max(0, math.floor(y) - reach), max(0, math.floor(x) - reach)
        near = mask[top : math.ceil(y) + reach + 1, left : math.ceil(x) + reach + 1].nonzero()
        squared = (near[:, 0] + top - y) ** 2 + (near[:, 1] + left - x) ** 2
        return 1 if bool((squared < self.tolerance**2).any()) else -1

    def aggregate(self, hit: int, class_id: int) -> None:
        """Count a result.

        Args:
            hit: 1 or -1, from `evaluate`; 0 is not counted.
            class_id: The object's class.

        Raises:
            ValueError: Another value, or a class out of range.
        """
        if hit not in (-1, 0, 1):
            raise ValueError(f"a result is 1 (hit), -1 (miss) or 0 (skipped), not {hit}")
        if not 0 <= class_id < self.num_classes:
            raise ValueError(f"class {class_id} is out of range: there are classes 0 to {self.num_classes - 1}")
        if hit == 1:
            self.hits[class_id] += 1
        elif hit == -1:
            self.misses[class_id] += 1

    @property
    def class_accuracies(self) -> Float[Tensor, " k"]:
        """Share of hits of each class; 0 for a class that never occurred."""
        return self.hits / (self.hits + self.misses).clamp(min=1)

    @property
    def accuracy(self) -> float:
        """Mean of the class accuracies, over all classes."""
        return float(self.class_accuracies.mean())

    def __str__(self) -> str:
        counted = int((self.hits + self.misses).sum())
        return f"{100 * self.accuracy:.1f}% over {self.num_classes} classes, {counted} points"


def voc_box_mask(boxes: Sequence[Sequence[float]], height: int, width: int) -> Bool[Tensor, "h w"]:
    """The union of filled boxes in VOC's convention.

    Args:
        boxes: (xmin, ymin, xmax, ymax), 1-based and inclusive.
        height: Of the image.
        width: Of the image.

    Returns:
        A mask.

    Example:
        >>> voc_box_mask([(1, 1, 2, 3)], 4, 4).sum()
        tensor(6)
    """
    mask = np.zeros((height, width), dtype=bool)
    for xmin, ymin, xmax, ymax in boxes:
        mask[max(0, round(ymin) - 1) : max(0, round(ymax)), max(0, round(xmin) - 1) : max(0, round(xmax))] = True
    return torch.from_numpy(mask)
