"""A whole search in one call: warm-up, search, the network that is found; and it survives a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from saccade.action.autox3d import X3DSearchSpace
from saccade.action.x3d_supernet import X3DSupernet
from saccade.checkpoints import read_torch
from saccade.nn.architectures import CategoricalArchitectureDistribution
from saccade.nn.probabilistic_search import ProbabilisticSearch, Sampled
from saccade.nn.x3d_architecture import X3DArchitecture

Batches = Callable[[int], Mapping[str, Any]]
"""The number of a step to its batch, a dict with `video` and `label`: the same batch whenever it is asked."""


@dataclass(frozen=True)
class SearchSettings:
    """How long and how fast a search goes.

    Args:
        steps: Of the weights, in all.
        warmup: Of them, those in which the distribution stays uniform; `None`: a third, as in the paper.
        joint_from: From this step on the choices of a block have one distribution together; `None`: never.
        optimizer: Of the shared weights: `sgd` with momentum, or `adamw` for small networks and few steps.
        lr: Of that; falls to 0 as a cosine.
        momentum: Of SGD.
        weight_decay: Of either.
        architecture_lr: Of Adam for the distribution.
        cost_weight: Nats that a cost of twice the target takes away.
        sharpness: Factor of the mean log-likelihood in the weights of samples.
        sample_factor: Samples a nat of entropy.
        min_samples: At least so many architectures a step.
        max_samples: At most so many.
        seed: Of weights and draws.

    Raises:
        ValueError: No steps, or a warm-up longer than they are.

    Note:
        Source: arXiv:2112.04710, supplement: learning rates 1.6 (batch 192) and 0.025, a third of warm-up. The other
        values are choices.
    """

    steps: int
    warmup: int | None = None
    joint_from: int | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1.6
    momentum: float = 0.9
    weight_decay: float = 5e-5
    architecture_lr: float = 0.025
    cost_weight: float = 10.0
    sharpness: float = 10.0
    sample_factor: float = 0.25
    min_samples: int = 2
    max_samples: int = 14
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise ValueError(f"optimizer is 'sgd' or 'adamw', not {self.optimizer!r}")
        if self.steps < 1 or not 0 <= self.warm < self.steps:
            raise ValueError(f"a search has at least 1 step after its warm-up, not {self.steps} with {self.warm} warm")

    @property
    def warm(self) -> int:
        """Steps of the warm-up."""
        return self.steps // 3 if self.warmup is None else self.warmup


@dataclass
class X3DSearchResult:
    """What a search found.

    Attributes:
        choices: The most probable architecture that keeps to the target, as indices.
        architecture: The same as an architecture.
        mode: The most probable one whatever its cost.
        cost: Multiply-adds of `choices` over the target.
        samples: Architectures drawn.
        history: A row for each step: `step`, `loss`, `entropy`, `samples`, `expected_cost` (over the target).
        distribution: Over architectures, at the end.
        supernet: With the shared weights, at the end.
    """

    choices: Int[Tensor, " l"]
    architecture: X3DArchitecture
    mode: Int[Tensor, " l"]
    cost: float
    samples: int
    distribution: CategoricalArchitectureDistribution
    supernet: X3DSupernet
    history: list[dict[str, float]] = field(default_factory=list)


def search_x3d(
    space: X3DSearchSpace,
    train: Batches,
    held_out: Batches,
    target: float,
    settings: SearchSettings,
    *,
    folder: str | Path | None = None,
    save_every: int = 100,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> X3DSearchResult:
    """Search a network for a budget.

    Args:
        space: What may be chosen.
        train: Batches for the shared weights.
        held_out: Batches for the distribution, of other clips.
        target: Multiply-adds that a clip may cost.
        settings: How long and how fast.
        folder: Where the state is kept; a search that was killed goes on from there and ends as if it had not been.
            `None`: nowhere. At the end `architecture.json` is there too.
        save_every: Steps between states.
        device: Where to compute; batches are moved there.
        progress: Called with the share that is done.

    Returns:
        The architecture, and how it was found.

    Raises:
        ValueError: A folder that holds a search with other settings, or a log-likelihood that is not finite.

    Note:
        Source: arXiv:2112.04710, supplement (schedule). What a step draws is a function of the seed and the step.
    """
    if save_every < 1:
        raise ValueError(f"save_every has to be at least 1, not {save_every}")
    folder = None if folder is None else Path(folder)
    running = _Running(space, target, settings, torch.device(device))
    if folder is not None:
        running.resume(folder)
    while running.step < settings.steps:
        running.advance(train, held_out)
        if progress:
            progress(running.step / settings.steps)
        if folder is not None and (running.step % save_every == 0 or running.step == settings.steps):
            running.save(folder)
    result = running.result()
    if folder is not None:
        result.architecture.save(folder / "architecture.json")
    return result


class _Running:
    """A search between two steps."""

    def __init__(self, space: X3DSearchSpace, target: float, settings: SearchSettings, device: torch.device) -> None:
        self.space, self.target, self.settings, self.device = space, target, settings, device
        self.costs, self.step, self.history = space.cost(), 0, list[dict[str, float]]()
        self.draw, kept = torch.Generator(), torch.get_rng_state()
        torch.manual_seed(settings.seed)
        self.supernet = X3DSupernet(space).to(device)
        torch.set_rng_state(kept)
        shared, decay = self.supernet.parameters(), settings.weight_decay
        self.weights: torch.optim.Optimizer = (
            torch.optim.SGD(shared, settings.lr, settings.momentum, weight_decay=decay)
            if settings.optimizer == "sgd"
            else torch.optim.AdamW(shared, settings.lr, weight_decay=decay)
        )
        self.search = self._search(CategoricalArchitectureDistribution(space.space).to(device), 0)

    def _search(self, distribution: CategoricalArchitectureDistribution, samples: int) -> ProbabilisticSearch:
        settings = self.settings
        search = ProbabilisticSearch(
            self.supernet.log_likelihood,
            distribution,
            self.costs,
            self.target,
            cost_weight=settings.cost_weight,
            sharpness=settings.sharpness,
            sample_factor=settings.sample_factor,
            min_samples=settings.min_samples,
            max_samples=settings.max_samples,
            parameters=list(self.supernet.parameters()),
            weight_optimizer=self.weights,
            architecture_optimizer=torch.optim.Adam(distribution.parameters(), settings.architecture_lr),
            generator=self.draw,
        )
        search.samples_drawn = samples
        return search

    def join(self) -> None:
        """From here on a block's choices are drawn together."""
        groups = block_groups(self.space)
        self.search = self._search(self.search.distribution.to_joint(groups), self.search.samples_drawn)

    def advance(self, train: Batches, held_out: Batches) -> None:
        """One step."""
        settings, step = self.settings, self.step
        if step == settings.joint_from:
            self.join()
        for group in self.weights.param_groups:
            group["lr"] = settings.lr * (1 + math.cos(math.pi * step / settings.steps)) / 2
        self.draw.manual_seed((settings.seed << 32) + step)
        batch = self._moved(train(step))
        if step < settings.warm:
            sampled = self.search.warmup(batch)
        else:
            sampled = self.search.step(batch, self._moved(held_out(step)))
        self.step += 1
        self.history.append(self._row(sampled))

    def _row(self, sampled: Sampled) -> dict[str, float]:
        with torch.no_grad():
            expected = float(self.search.distribution.expected_cost(self.costs)) / self.target
        return {
            "step": float(self.step),
            "loss": sampled.loss,
            "entropy": sampled.entropy,
            "samples": float(len(sampled.weights)),
            "expected_cost": expected,
        }

    def _moved(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in batch.items()}

    def about(self) -> str:
        """What has to be the same for a search to go on."""
        return json.dumps({"space": asdict(self.space), "target": self.target, "settings": asdict(self.settings)})

    def save(self, folder: Path) -> None:
        """Write the state; it is there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "about": self.about(),
            "step": self.step,
            "history": self.history,
            "supernet": self.supernet.state_dict(),
            "search": self.search.state_dict(),
        }
        partial = folder / f"search.{os.getpid()}.partial"
        torch.save(state, partial)
        partial.replace(folder / "search.pt")

    def resume(self, folder: Path) -> None:
        """Go on from a state, where there is one."""
        path = folder / "search.pt"
        if not path.exists():
            return
        state: Any = read_torch(path)
        if not isinstance(state, dict) or state.get("about") != self.about():
            raise ValueError(
                f"{path} holds a search with another space, target or settings: name another folder, or remove it"
            )
        self.step, self.history = state["step"], state["history"]
        if self.settings.joint_from is not None and self.step > self.settings.joint_from:
            self.join()
        self.supernet.load_state_dict(state["supernet"])
        self.search.load_state_dict(state["search"])

    def result(self) -> X3DSearchResult:
        """What has been found."""
        search = self.search
        choices = search.derive(within=self.target)
        return X3DSearchResult(
            choices=choices,
            architecture=self.space.decode(choices),
            mode=search.derive(),
            cost=float(self.costs(choices[None])[0]) / self.target,
            samples=search.samples_drawn,
            distribution=search.distribution,
            supernet=self.supernet,
            history=self.history,
        )


def block_groups(space: X3DSearchSpace) -> list[list[str]]:
    """The decisions of a space by block, and each width by itself: what a joint distribution unites.

    Args:
        space: The space.

    Returns:
        Names of decisions, by group.

    Example:
        >>> block_groups(X3DSearchSpace(depths=(1, 1), candidates=(5, 1), groups=(8, 16)))[:2]
        [['1.width'], ['1.0.kernel', '1.0.expansion', '1.0.attention']]
    """
    groups: dict[str, list[str]] = {}
    for name in space.space.names:
        groups.setdefault(name if name.endswith("width") else name.rpartition(".")[0], []).append(name)
    return list(groups.values())
