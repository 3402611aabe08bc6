"""What a search looks through: tables of measured architectures, or choices of one's own."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from saccade.efficiency.cells import one_hot

Oracle = Callable[[Any], float]
"""From a described member of a space to its value; higher is better."""


class SearchSpace(ABC):
    """Members with names, and numbers by which a predictor knows them.

    Attributes:
        keys: Names of all members, or of a random pool where there are too many.
    """

    keys: Sequence[str]

    @abstractmethod
    def encode(self, keys: Sequence[str]) -> np.ndarray:
        """Features of members, (n, d) float64."""

    @abstractmethod
    def neighbours(self, key: str) -> list[str]:
        """Members that differ in one decision."""

    def describe(self, key: str) -> Any:
        """What an oracle is handed; the name itself for tables."""
        return key

    @cached_property
    def features(self) -> np.ndarray:
        """Of all `keys`."""
        return self.encode(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class TabularBenchmark(SearchSpace):
    """Architectures whose accuracy is in a table.

    Args:
        encodings: (n, d), a row for each architecture.
        metrics: By name (n,) or, measured several times, (n, runs), in which NaN stands for runs that were not made.
        keys: Names; the numbers of the rows where `None`.
        neighbours: Names of those that differ in one decision, from a name; where `None`, those whose encodings are
            nearest by the number of entries that differ.

    Raises:
        ValueError: Ragged or non-finite encodings, metrics of another length, repeated names.

    Example:
        >>> table = TabularBenchmark(np.eye(3), {"accuracy": np.array([90.0, 92.0, 91.0])}, ["a", "b", "c"])
        >>> table.oracle("accuracy")("b"), table.best("accuracy")
        (92.0, ('b', 92.0))
    """

    def __init__(
        self,
        encodings: np.ndarray | Sequence[Sequence[float]],
        metrics: Mapping[str, np.ndarray],
        keys: Sequence[str] | None = None,
        neighbours: Callable[[str], list[str]] | None = None,
    ) -> None:
        try:
            self._features = np.asarray(encodings, dtype=np.float64)
        except ValueError:
            raise ValueError("encodings are ragged: each architecture needs as many numbers as the others") from None
        if self._features.ndim != 2 or not np.isfinite(self._features).all():
            raise ValueError(f"encodings have the shape {self._features.shape}; finite (n, d) is accepted")
        count = len(self._features)
        self.keys = [str(number) for number in range(count)] if keys is None else list(keys)
        self.rows = {key: row for row, key in enumerate(self.keys)}
        if len(self.keys) != count or len(self.rows) != count:
            raise ValueError(f"{len(self.keys)} names, {len(self.rows)} of them distinct, for {count} architectures")
        self.metrics = {name: np.asarray(values, dtype=np.float64) for name, values in metrics.items()}
        for name, values in self.metrics.items():
            if len(values) != count or values.ndim > 2:
                raise ValueError(
                    f"the metric {name!r} has the shape {values.shape}; ({count},) or ({count}, runs) is accepted"
                )
        self._neighbours = neighbours

    def encode(self, keys: Sequence[str]) -> np.ndarray:
        """Rows of the encodings."""
        if keys is self.keys:
            return self._features
        return self._features[[self.rows[key] for key in keys]]

    def neighbours(self, key: str) -> list[str]:
        """As the table defines them."""
        if self._neighbours is not None:
            return self._neighbours(key)
        apart = (self._features != self._features[self.rows[key]]).sum(axis=1)
        nearest = apart[apart > 0].min(initial=self._features.shape[1])
        return [self.keys[row] for row in np.flatnonzero(apart == nearest).tolist()]

    def values(self, metric: str) -> np.ndarray:
        """A metric of all architectures, the mean over runs.

        Raises:
            ValueError: Another metric.
        """
        if metric not in self.metrics:
            raise ValueError(f"the metrics of this table are {', '.join(self.metrics)}, not {metric!r}")
        found = self.metrics[metric]
        return found if found.ndim == 1 else np.nanmean(found, axis=1)

    def oracle(self, metric: str, seed: int | None = None) -> Oracle:
        """What a search asks.

        Args:
            metric: Which.
            seed: Where given, each architecture shows one of its runs, drawn once; else their mean.

        Returns:
            From a name to its value.
        """
        values, runs = self.values(metric), self.metrics[metric]
        if seed is not None and runs.ndim == 2:
            order = np.random.default_rng(seed).random(runs.shape)
            values = np.take_along_axis(runs, np.where(np.isnan(runs), -1, order).argmax(axis=1)[:, None], axis=1)[:, 0]
        return lambda key: float(values[self.rows[key]])

    def best(self, metric: str) -> tuple[str, float]:
        """The optimum: name and value."""
        values = self.values(metric)
        row = int(np.nanargmax(values))
        return self.keys[row], float(values[row])


class ChoiceSpace(SearchSpace):
    """Every combination of choices: kernel sizes, depths, hyper-parameters.

    Args:
        choices: Name of each decision and what it can be. Numbers are known to a predictor by their size and by
            which they are, everything else by which it is.
        pool: Where there are more combinations, so many of them at random are the space that is ranked.
        accept: From a combination to whether it is allowed, such as a bound on the operations.
        seed: Of the pool.

    Raises:
        ValueError: A decision without choices or with one twice, or nothing that is accepted.

    Example:
        >>> space = ChoiceSpace({"kernel": [3, 5], "block": ["plain", "residual"]})
        >>> space.keys[1], space.describe(space.keys[1])
        ('0-1', {'kernel': 3, 'block': 'residual'})
        >>> space.neighbours("0-1")
        ['1-1', '0-0']
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any]],
        pool: int = 10_000,
        accept: Callable[[dict[str, Any]], bool] | None = None,
        seed: int = 0,
    ) -> None:
        if not choices or not all(choices.values()):
            raise ValueError("every decision needs at least one choice, and there has to be a decision")
        self.choices = {name: list(values) for name, values in choices.items()}
        for name, values in self.choices.items():
            if len({json.dumps(value, sort_keys=True, default=str) for value in values}) < len(values):
                raise ValueError(f"the decision {name!r} has a choice twice: {values}")
        self.accept = accept
        self.sizes = tuple(len(values) for values in self.choices.values())
        total = math.prod(self.sizes)
        if total <= pool:
            codes = [code for code in product(*map(range, self.sizes)) if self._accepts(code)]
        else:
            codes = self._sample(pool, np.random.default_rng(seed))
        if not codes:
            raise ValueError(f"none of the {total:,} combinations is accepted")
        self.keys = ["-".join(map(str, code)) for code in codes]

    def encode(self, keys: Sequence[str]) -> np.ndarray:
        """Which choice it is at each decision, and the size of numbers, scaled to [0, 1]."""
        codes = np.array([self._code(key) for key in keys], dtype=np.int64).reshape(len(keys), len(self.sizes))
        columns = [one_hot(codes, self.sizes)]
        for position, values in enumerate(self.choices.values()):
            if len(values) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
                numbers = np.asarray(values, dtype=np.float64)
                columns.append(((numbers - numbers.min()) / np.ptp(numbers))[codes[:, position], None])
        return np.concatenate(columns, axis=1)

    def neighbours(self, key: str) -> list[str]:
        """Those that differ in one decision."""
        code = self._code(key)
        found = []
        for position, size in enumerate(self.sizes):
            for value in range(size):
                other = (*code[:position], value, *code[position + 1 :])
                if value != code[position] and self._accepts(other):
                    found.append("-".join(map(str, other)))
        return found

    def describe(self, key: str) -> dict[str, Any]:
        """The combination."""
        return self._named(self._code(key))

    def _code(self, key: str) -> tuple[int, ...]:
        return tuple(map(int, key.split("-")))

    def _named(self, code: Sequence[int]) -> dict[str, Any]:
        return {name: values[place] for place, (name, values) in zip(code, self.choices.items(), strict=True)}

    def _accepts(self, code: Sequence[int]) -> bool:
        return self.accept is None or self.accept(self._named(code))

    def _sample(self, count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """Distinct combinations that are accepted; fewer where hardly any is."""
        found: dict[tuple[int, ...], None] = {}
        for _ in range(200):
            drawn = np.stack([rng.integers(size, size=count) for size in self.sizes], axis=1)
            for code in map(tuple, drawn.tolist()):
                if len(found) < count and self._accepts(code):
                    found[code] = None
            if len(found) == count:
                break
        return list(found)
