"""Searching a space of architectures by a probability distribution and weighted samples of it.

The search maximises the likelihood of held-out data under architectures drawn from a categorical distribution. Each
step draws a few architectures, weighs them by how well they explain the data and by what they cost, and moves the
distribution towards the good ones; the weights that all architectures share are trained with the same samples. As the
distribution settles, fewer samples are drawn. Only one architecture is in memory at a time.

Sources: arXiv:1902.05116 (importance-weighted samples), arXiv:2011.10949 (cost, number of samples).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Optimizer

from saccade.nn.architectures import CategoricalArchitectureDistribution, CostTables

LogLikelihood = Callable[[Any, Tensor], Tensor]
"""A batch and an architecture, a row of indices, to the mean log-likelihood of the batch, a scalar."""

CostFunction = Callable[[Tensor], Tensor]
"""Architectures (k, l) to costs (k)."""


def cost_penalty(cost: Float[Tensor, " k"], target: float) -> Float[Tensor, " k"]:
    """How far architectures are above the cost they may have: max(0, cost / target - 1).

    Args:
        cost: Of each architecture.
        target: What it may be.

    Returns:
        0 where an architecture keeps to the target.

    Raises:
        ValueError: A cost or target that is not positive.

    Example:
        >>> cost_penalty(torch.tensor([0.5, 1.5]), 1.0)
        tensor([0.0000, 0.5000])
    """
    if not target > 0:
        raise ValueError(f"target has to be positive, not {target}")
    if not bool((cost > 0).all()):
        raise ValueError(f"costs have to be positive, not {float(cost.min())}")
    return (cost / target - 1).clamp(min=0)


def importance_weights(
    log_likelihood: Float[Tensor, " k"],
    cost: Float[Tensor, " k"] | None = None,
    target: float | None = None,
    cost_weight: float = 0.0,
) -> Float[Tensor, " k"]:
    """Weights of samples: the softmax of their log-likelihoods, less a penalty for costs above the target.

    Args:
        log_likelihood: Of each sampled architecture, in nats.
        cost: Of each; `None`: no penalty.
        target: What an architecture may cost; needed with `cost`.
        cost_weight: Nats that a cost of twice the target takes away.

    Returns:
        Weights that sum to 1.

    Raises:
        ValueError: No samples, a log-likelihood that is not finite, cost without target, or ones that are not positive.

    Note:
        Source: arXiv:1902.05116 (weights), arXiv:2011.10949 (cost).

    Example:
        >>> importance_weights(torch.zeros(2), torch.tensor([1.0, 2.0]), target=1.0, cost_weight=math.log(3))
        tensor([0.7500, 0.2500])
    """
    if log_likelihood.ndim != 1 or len(log_likelihood) < 1:
        raise ValueError(f"log-likelihoods are of at least 1 sample, (k,), not {tuple(log_likelihood.shape)}")
    finite = log_likelihood.isfinite()
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise ValueError(f"the log-likelihood of sample {first} is {float(log_likelihood[first])}")
    if cost is None:
        return log_likelihood.softmax(0)
    if target is None:
        raise ValueError("a cost needs a target to be compared with")
    if cost.shape != log_likelihood.shape:
        raise ValueError(f"one cost a sample is needed, {tuple(log_likelihood.shape)}, not {tuple(cost.shape)}")
    penalty = cost_penalty(cost, target).to(log_likelihood)
    return (log_likelihood - cost_weight * penalty).softmax(0)


def num_samples(entropy: float | Tensor, factor: float = 0.25, minimum: int = 2, maximum: int = 14) -> int:
    """How many architectures to draw from a distribution of that entropy: ceil(factor * entropy), within bounds.

    Args:
        entropy: In nats.
        factor: Samples a nat.
        minimum: At least 1.
        maximum: Not below it.

    Returns:
        The number.

    Raises:
        ValueError: A negative or infinite entropy or factor, or bounds that are none.

    Note:
        Source: arXiv:2011.10949.

    Example:
        >>> [num_samples(entropy, 0.5) for entropy in (0.1, 9.2, 50.0)]
        [2, 5, 14]
    """
    value = float(entropy.detach() if isinstance(entropy, Tensor) else entropy)
    if not (math.isfinite(value) and value >= -1e-6 and factor >= 0):
        raise ValueError(f"entropy and factor have to be finite and not negative, not {value} and {factor}")
    if not 1 <= minimum <= maximum:
        raise ValueError(f"bounds have to be 1 <= minimum <= maximum, not {minimum} and {maximum}")
    return min(max(math.ceil(factor * value), minimum), maximum)


def architecture_gradient(
    distribution: CategoricalArchitectureDistribution,
    architectures: Int[Tensor, "k l"],
    weights: Float[Tensor, " k"],
) -> Float[Tensor, "g m"]:
    """The gradient of minus the weighted sum of log-probabilities: a group's is minus the sum of weights (onehot - p).

    Args:
        distribution: Over architectures.
        architectures: The samples.
        weights: Of each, taken as constant.

    Returns:
        The gradient of its logits.

    Note:
        Source: arXiv:1902.05116. With equal weights of samples from the distribution itself its expectation is zero.
    """
    log_prob = distribution.log_prob(architectures)
    return torch.autograd.grad(-(weights.to(log_prob) * log_prob).sum(), [distribution.logits])[0]


@dataclass(frozen=True)
class Sampled:
    """What one step drew.

    Attributes:
        architectures: Rows of indices.
        weights: Importance weights, which sum to 1.
        log_likelihood: Of each on the batch.
        distinct: How many different ones there were, and so were computed.
        entropy: Of the distribution before the step, in nats.
    """

    architectures: Int[Tensor, "k l"]
    weights: Float[Tensor, " k"]
    log_likelihood: Float[Tensor, " k"]
    distinct: int
    entropy: float

    @property
    def loss(self) -> float:
        """The weighted mean of the negative log-likelihood."""
        return float(-(self.weights * self.log_likelihood).sum())


class ProbabilisticSearch:
    """The search: one object that draws, weighs, and computes both gradients.

    Args:
        log_likelihood: `log_likelihood(batch, architecture)`, the mean over the batch, differentiable in the shared
            weights. The mean, not the sum: a sum over the batch makes the best sample take all.
        distribution: Over architectures.
        cost: What architectures cost, such as [`CostTables`][saccade.nn.architectures.CostTables]; `None`: nothing.
        target: What they may cost.
        cost_weight: Nats that a cost of twice the target takes away.
        sharpness: Factor of the log-likelihood in the weights; 10 to 50 where samples differ by little.
        sample_factor: Samples a nat of entropy.
        min_samples: At least so many.
        max_samples: At most so many; the number of samples of the warm-up.
        parameters: The shared weights; their gradients are replaced by `weight_gradients`.
        weight_optimizer: Of the shared weights; needed for `warmup` and `step`, where there are any.
        architecture_optimizer: Of the distribution; needed for `step`.
        generator: Of the CPU, for drawing; torch's global one where `None`.
        agree: Applied to every log-likelihood: where several processes work on one batch, their mean.

    Raises:
        ValueError: A cost without a target, a target that is not positive, a sharpness or bounds that are none.

    Note:
        Equal architectures among the samples are computed once. Gradients of the shared weights are summed while the
        samples are computed one after the other: a softmax that is not known before its last entry is kept as a running
        maximum, and what is summed already is scaled when that changes. So one forward and one backward pass a sample
        suffice, and the memory of one network.

    Example:
        >>> from saccade.nn.architectures import ArchitectureSpace
        >>> distribution = CategoricalArchitectureDistribution(ArchitectureSpace({"choice": ["bad", "good"]}))
        >>> optimizer = torch.optim.Adam(distribution.parameters(), lr=0.1)
        >>> search = ProbabilisticSearch(
        ...     lambda batch, architecture: batch[architecture[0]], distribution, architecture_optimizer=optimizer
        ... )
        >>> for _ in range(50):
        ...     sampled = search.step(None, torch.tensor([0.0, 2.0]))
        >>> search.derive()
        tensor([1])
    """

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        distribution: CategoricalArchitectureDistribution,
        cost: CostFunction | None = None,
        target: float | None = None,
        *,
        cost_weight: float = 10.0,
        sharpness: float = 1.0,
        sample_factor: float = 0.25,
        min_samples: int = 2,
        max_samples: int = 14,
        parameters: list[torch.nn.Parameter] | None = None,
        weight_optimizer: Optimizer | None = None,
        architecture_optimizer: Optimizer | None = None,
        generator: torch.Generator | None = None,
        agree: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> None:
        if (cost is None) != (target is None) or (target is not None and not target > 0):
            raise ValueError(f"cost and target go together, and target has to be positive, not {target}")
        if not (sharpness > 0 and cost_weight >= 0):
            raise ValueError(f"sharpness has to be positive, cost_weight not negative: {sharpness}, {cost_weight}")
        num_samples(0.0, sample_factor, min_samples, max_samples)
        self.log_likelihood, self.distribution, self.cost, self.target = log_likelihood, distribution, cost, target
        self.cost_weight, self.sharpness = cost_weight, sharpness
        self.sample_factor, self.min_samples, self.max_samples = sample_factor, min_samples, max_samples
        self.parameters = list(parameters or [])
        self.weight_optimizer, self.architecture_optimizer = weight_optimizer, architecture_optimizer
        self.generator, self.agree = generator, agree
        self.samples_drawn = 0

    def draw(self, uniform: bool = False) -> tuple[Tensor, float]:
        """Architectures, as many as the entropy asks for, and that entropy.

        Args:
            uniform: Draw uniformly, and as many as there may be, whatever the distribution.

        Returns:
            Rows of indices, and nats.
        """
        with torch.no_grad():
            entropy = float(self.distribution.entropy())
        if uniform:
            drawn = self.distribution.space.sample(self.max_samples, self.generator)
        else:
            count = num_samples(max(entropy, 0.0), self.sample_factor, self.min_samples, self.max_samples)
            drawn = self.distribution.sample(count, self.generator)
        self.samples_drawn += len(drawn)
        return drawn, entropy

    def weight_gradients(self, batch: Any, uniform: bool = False) -> Sampled:
        """Leave the gradient of the weighted mean of the negative log-likelihoods in the shared weights.

        Args:
            batch: Of the training data.
            uniform: As in the warm-up: architectures drawn uniformly, all with the same weight.

        Returns:
            What was drawn.
        """
        drawn, entropy = self.draw(uniform)
        rows, inverse, counts = torch.unique(drawn, dim=0, return_inverse=True, return_counts=True)
        penalty = self._penalty(rows)
        largest, total = -math.inf, 0.0
        found = torch.zeros(len(rows), dtype=torch.float64)
        for parameter in self.parameters:
            parameter.grad = None
        for i, row in enumerate(rows):
            likelihood = self.log_likelihood(batch, row)
            found[i] = self._finite(likelihood, inverse, i)
            score = math.log(int(counts[i]))
            if not uniform:
                score += self.sharpness * float(found[i]) - self.cost_weight * float(penalty[i])
            if score > largest:
                self._scale(math.exp(largest - score))
                total, largest = total * math.exp(largest - score), score
            share = math.exp(score - largest)
            (-share * likelihood).backward()
            total += share
        self._scale(1 / total)
        likelihoods = found[inverse]
        weights = torch.full_like(likelihoods, 1 / len(drawn)) if uniform else self._weights(likelihoods, drawn)
        return Sampled(drawn, weights, likelihoods, len(rows), entropy)

    def architecture_gradients(self, batch: Any) -> Sampled:
        """Leave the gradient of the distribution in its logits: minus the sum of weights times (onehot - p).

        Args:
            batch: Of held-out data.

        Returns:
            What was drawn.
        """
        drawn, entropy = self.draw()
        rows, inverse = torch.unique(drawn, dim=0, return_inverse=True)
        with torch.no_grad():
            found = [self._finite(self.log_likelihood(batch, row), inverse, i) for i, row in enumerate(rows)]
        likelihoods = torch.tensor(found, dtype=torch.float64)[inverse]
        weights = self._weights(likelihoods, drawn)
        self.distribution.logits.grad = architecture_gradient(self.distribution, drawn, weights)
        return Sampled(drawn, weights, likelihoods, len(rows), entropy)

    def warmup(self, train_batch: Any) -> Sampled:
        """One step of the shared weights, with architectures drawn uniformly; the distribution stays.

        Args:
            train_batch: Of the training data.

        Returns:
            What was drawn.
        """
        sampled = self.weight_gradients(train_batch, uniform=True)
        self._optimizer(self.weight_optimizer, "weight_optimizer").step()
        return sampled

    def step(self, train_batch: Any, val_batch: Any) -> Sampled:
        """One step of the shared weights, where there are any, and one of the distribution.

        Args:
            train_batch: Of the training data.
            val_batch: Of held-out data.

        Returns:
            What was drawn for the distribution.
        """
        if self.parameters:
            self.weight_gradients(train_batch)
            self._optimizer(self.weight_optimizer, "weight_optimizer").step()
        sampled = self.architecture_gradients(val_batch)
        self._optimizer(self.architecture_optimizer, "architecture_optimizer").step()
        return sampled

    def derive(self, within: float | None = None) -> Int[Tensor, " l"]:
        """The architecture that is found: the most probable.

        Args:
            within: Only architectures that cost at most so much; needs a cost of tables. The penalty is soft, so that
                the mode may cost a little more than the target.

        Returns:
            A row of indices.
        """
        if within is None:
            return self.distribution.mode()
        if not isinstance(self.cost, CostTables):
            raise ValueError("a bound on the cost needs a cost given as CostTables")
        return self.distribution.within(self.cost, within)

    def state_dict(self) -> dict[str, Any]:
        """All that the search has to remember, beside the shared weights: tensors and numbers alone."""
        optimizers = {"weights": self.weight_optimizer, "architectures": self.architecture_optimizer}
        return {
            "distribution": self.distribution.state_dict(),
            "optimizers": {name: one.state_dict() for name, one in optimizers.items() if one is not None},
            "generator": None if self.generator is None else self.generator.get_state(),
            "samples_drawn": self.samples_drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Args:
            state: What `state_dict` gave.
        """
        self.distribution.load_state_dict(state["distribution"])
        for name, one in (("weights", self.weight_optimizer), ("architectures", self.architecture_optimizer)):
            if one is not None:
                one.load_state_dict(state["optimizers"][name])
        if self.generator is not None:
            self.generator.set_state(state["generator"])
        self.samples_drawn = state["samples_drawn"]

    def _weights(self, likelihoods: Tensor, drawn: Tensor) -> Tensor:
        cost = None if self.cost is None else self.cost(drawn).cpu().double()
        return importance_weights(self.sharpness * likelihoods, cost, self.target, self.cost_weight)

    def _penalty(self, rows: Tensor) -> Tensor:
        if self.cost is None or self.target is None:
            return torch.zeros(len(rows))
        return cost_penalty(self.cost(rows).cpu().double(), self.target)

    def _finite(self, likelihood: Tensor, inverse: Tensor, row: int) -> float:
        value = float(self.agree(likelihood.detach()))
        if not math.isfinite(value):
            first = int((inverse == row).nonzero()[0])
            raise ValueError(f"the log-likelihood of sample {first} is {value}")
        return value

    def _scale(self, factor: float) -> None:
        grads = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if grads and factor != 1:
            torch._foreach_mul_(grads, factor)

    def _optimizer(self, optimizer: Optimizer | None, name: str) -> Optimizer:
        if optimizer is None:
            raise ValueError(f"a step needs the {name}, which was not given")
        return optimizer
