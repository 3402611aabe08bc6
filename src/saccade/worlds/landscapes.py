"""A table of architectures with accuracies, as tabular benchmarks have it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np


@dataclass(frozen=True)
class Landscape:
    """Architectures, and how well they do.

    Args:
        codes: Choice of each layer, (n, layers).
        accuracy: Of each training run in percent, (n, runs).
        choices: Number of choices a layer.
    """

    codes: np.ndarray
    accuracy: np.ndarray
    choices: int

    @property
    def keys(self) -> list[str]:
        """Names: the digits of the choices."""
        return ["".join(map(str, code)) for code in self.codes.tolist()]


def landscape(
    seed: int,
    layers: int = 8,
    choices: int = 3,
    interaction: float = 0.6,
    noise: float = 0.15,
    runs: int = 3,
    ceiling: float = 93.2,
    spread: float = 2.2,
) -> Landscape:
    """All combinations of choices; a pure function of its arguments.

    Quality is a sum of what each choice does and of what each pair of choices does together, pairs of near layers
    more. Accuracy saturates below a ceiling: most architectures lie within a few points, the best crowd together,
    and a few are bad, as in NAS-Bench-Macro. Training runs differ by noise.

    Args:
        seed: Everything random comes from it.
        layers: Decisions.
        choices: Of each, fewer than ten.
        interaction: Size of what pairs do, relative to single choices.
        noise: Standard deviation between runs, in points.
        runs: Trainings of each architecture.
        ceiling: That no architecture passes, in percent.
        spread: How far below it the middle lies, in points.

    Returns:
        The table.

    Raises:
        ValueError: Fewer than 1 layer or 2 choices, or more than 10.

    Example:
        >>> table = landscape(seed=0, layers=4)
        >>> table.codes.shape, table.accuracy.shape, table.keys[1]
        ((81, 4), (81, 3), '0001')
    """
    if layers < 1 or not 2 <= choices <= 10:
        raise ValueError(f"layers are at least 1 and choices from 2 to 10, not {layers} and {choices}")
    rng = np.random.default_rng([seed, layers, choices])
    codes = np.array(list(product(range(choices), repeat=layers)))
    quality = rng.normal(size=(layers, choices))[np.arange(layers), codes].sum(axis=1)
    for first in range(layers):
        for second in range(first + 1, layers):
            together = rng.normal(size=(choices, choices)) * interaction / (second - first)
            quality = quality + together[codes[:, first], codes[:, second]]
    quality = (quality - quality.mean()) / quality.std()
    mean = ceiling - spread * np.exp(-0.8 * quality)
    accuracy = mean[:, None] + noise * rng.normal(size=(len(codes), runs))
    return Landscape(codes, np.clip(accuracy, 0, 100), choices)
