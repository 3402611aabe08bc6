"""A search space whose every member is known, for the algorithmic claim of Auto-X3D."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.nn.architectures import ArchitectureSpace, CostTables


class KnownSpace:
    """A utility for each choice and each pair of neighbouring choices, and costs: what is good is a little dearer.

    Attributes:
        space: The decisions.
        cost: Of architectures.
        target: The median cost of all architectures.
        best: The greatest utility within the target.
        mean: The mean utility within the target.

    Args:
        seed: Of the tables.
        decisions: How many.
        choices: Of each.
        noise: Standard deviation of a look at a utility.

    Example:
        >>> KnownSpace(0, decisions=3).space.count
        64
    """

    def __init__(self, seed: int, decisions: int = 8, choices: int = 4, noise: float = 0.3) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.noise, self.draw = noise, draw
        self.single = 0.5 * torch.randn(decisions, choices, generator=draw, dtype=torch.float64)
        self.pair = 0.25 * torch.randn(decisions - 1, choices, choices, generator=draw, dtype=torch.float64)
        costs = torch.rand(decisions, choices, generator=draw, dtype=torch.float64) + 0.2 * self.single
        self.space = ArchitectureSpace({f"decision {i}": range(choices) for i in range(decisions)})
        self.cost = CostTables(self.space, list(costs.clamp(min=0.05)))
        everything = torch.cartesian_prod(*decisions * [torch.arange(choices)])
        every_cost, utilities = self.cost(everything), self.utility(everything)
        self.target = float(every_cost.median())
        feasible = utilities[every_cost <= self.target]
        self.best, self.mean = float(feasible.max()), float(feasible.mean())

    def utility(self, architectures: Int[Tensor, "k l"]) -> Float[Tensor, " k"]:
        """The true utility of architectures."""
        at = torch.arange(architectures.shape[1])
        own = self.single[at, architectures].sum(1)
        return own + self.pair[at[:-1], architectures[:, :-1], architectures[:, 1:]].sum(1)

    def utility_of_choices(self) -> Float[Tensor, "l c"]:
        """What each choice is worth by itself, with the mean of its interactions."""
        worth = self.single.clone()
        worth[:-1] += self.pair.mean(2)
        worth[1:] += self.pair.mean(1)
        return worth

    def look(self, _: object, architecture: Int[Tensor, " l"]) -> Float[Tensor, ""]:
        """A noisy utility, as a search sees it."""
        return self.utility(architecture[None])[0] + self.noise * torch.randn((), generator=self.draw).double()

    def score(self, architecture: Int[Tensor, " l"]) -> float:
        """1 for the best architecture within the target, 0 for their mean."""
        return (float(self.utility(architecture[None])[0]) - self.mean) / (self.best - self.mean)
