"""What a claim is: arms, data, budgets and expectations. Domains write them, the engine runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

BudgetName = Literal["smoke", "small", "full"]


@dataclass(frozen=True)
class Arm:
    """One contestant.

    Args:
        title: What the table calls it.
        options: What distinguishes it, handed to the claim's `run` as `cell.options`.
        baseline: Whether it is what the method is compared with.
        on: Names of the data it can be run on; all where empty.
    """

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    baseline: bool = False
    on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A figure that a run gives.

    Args:
        title: Its name in tables, with the unit where it has one, such as `P@1 (%)`.
        higher_is_better: Its direction.
        digits: Decimals to print.
        on: Names of the data it is measured on; all where empty.
    """

    title: str
    higher_is_better: bool = True
    digits: int = 1
    on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beats:
    """Expectation: over paired seeds, `arm` is better than `than` by at least `by` units of `metric`.

    Args:
        arm: Key of the arm that should win.
        than: Key of the other.
        by: Margin, not negative, in the metric's units.
        metric: Key of the metric; the claim's first where empty.
        on: Names of the data it is expected on; everywhere where empty.
    """

    arm: str
    than: str
    by: float = 0.0
    metric: str = ""
    on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Within:
    """Expectation: the mean over seeds of one arm's `metric` is at least or at most a bound.

    Args:
        arm: Key of the arm.
        metric: Key of the metric.
        at_least: Lower bound.
        at_most: Upper bound. Exactly one of the two is given.
        on: Names of the data it is expected on; everywhere where empty.
    """

    arm: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("an expectation has exactly one of at_least and at_most")


Expectation = Beats | Within


@dataclass(frozen=True)
class Data:
    """What a claim can be run on.

    Args:
        title: One line: what it is, how much, where from.
        needs: Folder below the data root that has to be there; empty: nothing to download.
        paper: The paper's figures on it, by arm, in the first metric's units.
        seeds: Number of seeds where it differs from the budget's (a protocol with ten splits, say).
        note: How the protocol differs from the paper's, and what that does to the figures.
        settings: Added to the budget's settings; where both name one, these win.
    """

    title: str
    needs: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)
    seeds: int | None = None
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How much is spent on a run: the number of seeds, and settings such as steps and sizes."""

    seeds: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One arm at one seed: what a claim's `run` is given. The global generators are seeded before `run` is called.

    Args:
        arm: Key of the arm.
        options: The arm's options.
        seed: Everything random comes from it; all arms of a seed see the same data and, where they share it, start.
        data: Name of the data.
        settings: The budget's and the data's settings.
        device: Where to compute.
        data_root: Root of the real data.
        once: `once(name, build)` gives what `build()` gives, computed once a seed and shared by its arms: a base
            model, say, as a flat dict of tensors.
        progress: To be called with the share that is done, 0 to 1.
    """

    arm: str
    options: Mapping[str, Any]
    seed: int
    data: str
    settings: Mapping[str, Any]
    device: torch.device
    data_root: Path
    once: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]
    progress: Callable[[float], None]


@dataclass
class Outcome:
    """What a cell gives.

    Args:
        metrics: One number for every metric that the claim has on the cell's data.
        curves: Name to (x, y) points, such as the training loss over steps.
        pictures: Caption to picture, (H, W) or (H, W, 3) uint8, that a person would want to see.
    """

    metrics: dict[str, float]
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Axis:
    """Labels of a curve: `x` and `y` with their units."""

    x: str
    y: str
    log_x: bool = False


@dataclass(frozen=True)
class Claim:
    """A paper's statement in a form that can be run.

    Args:
        slug: The method.
        statement: What is claimed here, in one or two sentences, with its margins.
        paper: What the paper states, with its figures.
        metrics: Key to metric; the first decides where an expectation names none.
        arms: Key to arm, the baseline first.
        expectations: All must hold for the claim to hold.
        data: Name to data; the first is the embedded default, which needs no download.
        budgets: `smoke`, `small` and `full`.
        run: Computes one cell.
        axes: Labels for the curves, by name.
        limits: Where the effect ends, what was tried: printed with the verdict.
    """

    slug: str
    statement: str
    paper: str
    metrics: Mapping[str, Metric]
    arms: Mapping[str, Arm]
    expectations: Sequence[Expectation]
    data: Mapping[str, Data]
    budgets: Mapping[BudgetName, Budget]
    run: Callable[[Cell], Outcome]
    axes: Mapping[str, Axis] = field(default_factory=dict)
    limits: str = ""

    def __post_init__(self) -> None:
        for expected in self.expectations:
            named = [expected.arm, *([expected.than] if isinstance(expected, Beats) else [])]
            unknown = [arm for arm in named if arm not in self.arms]
            if unknown or (expected.metric and expected.metric not in self.metrics):
                raise ValueError(f"{self.slug}: an expectation names {unknown or expected.metric!r}, which is not here")
        missing = {"smoke", "small", "full"} - set(self.budgets)
        if missing:
            raise ValueError(f"{self.slug}: no budget {', '.join(sorted(missing))}")

    def for_data(self, data: str) -> Claim:
        """The claim with those arms and metrics alone that belong to this data, and what is expected of them."""
        arms = {key: arm for key, arm in self.arms.items() if not arm.on or data in arm.on}
        metrics = {key: metric for key, metric in self.metrics.items() if not metric.on or data in metric.on}
        expected = [
            e
            for e in self.expectations
            if {e.arm, e.than if isinstance(e, Beats) else e.arm} <= set(arms) and (e.metric or self.metric) in metrics
        ]
        return replace(self, arms=arms, metrics=metrics, expectations=expected)

    @property
    def metric(self) -> str:
        """Key of the first metric."""
        return next(iter(self.metrics))

    @property
    def default_data(self) -> str:
        """Name of the embedded data."""
        return next(iter(self.data))
