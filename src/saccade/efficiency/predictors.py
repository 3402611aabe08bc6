"""Predictors of accuracy from the encoding of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@runtime_checkable
class Predictor(Protocol):
    """Anything with `fit` and `predict`, such as a regressor of scikit-learn."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Learn from (n, d) features and (n,) values."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Values (n,), or of several members (members, n)."""


class Ridge:
    """Least squares with a penalty on all weights, the constant's too.

    Args:
        penalty: Factor of the sum of squared weights.

    Example:
        >>> model = Ridge(penalty=1e-9).fit(np.array([[0.0], [1.0]]), np.array([1.0, 3.0]))
        >>> np.round(model.predict(np.array([[2.0]])), 4).tolist()
        [5.0]
    """

    def __init__(self, penalty: float = 1.0) -> None:
        if penalty <= 0:
            raise ValueError(f"the penalty has to be positive, not {penalty}")
        self.penalty = penalty

    def fit(self, x: np.ndarray, y: np.ndarray) -> Ridge:
        """Solve the normal equations."""
        x = _with_constant(x)
        gram = x.T @ x + self.penalty * np.eye(x.shape[1])
        self.weights = np.linalg.solve(gram, x.T @ y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n,)."""
        return _with_constant(x) @ self.weights


class MLP:
    """An ensemble of perceptrons with squared error, all of them trained at once.

    The same as scikit-learn's regressor with these settings, up to its initialisation: four hidden layers of 1,000,
    ReLU, Adam with rate 1e-3, batches of up to 200, 100 epochs, and half the squared weights times `penalty` over the
    size of the batch.

    Args:
        hidden: Widths.
        members: Of the ensemble; each starts and shuffles in its own way.
        epochs: Passes.
        batch_size: At most.
        lr: Of Adam.
        penalty: As above.
        seed: Of the first member; the others count on.
        device: Where it is computed.

    Raises:
        ValueError: Numbers that are not positive.

    Example:
        >>> x = np.linspace(-1, 1, 50)[:, None]
        >>> model = MLP(hidden=(32,), members=3, epochs=200, lr=1e-2).fit(x, np.abs(x[:, 0]))
        >>> model.predict(x).shape, bool(np.abs(model.predict(x).mean(0) - np.abs(x[:, 0])).mean() < 0.1)
        ((3, 50), True)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (1000, 1000, 1000, 1000),
        members: int = 1,
        epochs: int = 100,
        batch_size: int = 200,
        lr: float = 1e-3,
        penalty: float = 1e-4,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not hidden or min(*hidden, members, epochs, batch_size) < 1 or lr <= 0 or penalty < 0:
            raise ValueError("hidden widths, members, epochs and batch_size are at least 1, lr positive, penalty >= 0")
        self.hidden, self.members, self.epochs, self.batch_size = tuple(hidden), members, epochs, batch_size
        self.lr, self.penalty, self.seed, self.device = lr, penalty, seed, torch.device(device)

    def fit(self, x: np.ndarray, y: np.ndarray) -> MLP:
        """Train anew."""
        generators = [torch.Generator().manual_seed(self.seed + member) for member in range(self.members)]
        features, values = self._tensor(x), self._tensor(y)
        widths = (features.shape[1], *self.hidden, 1)
        self.layers: list[tuple[Tensor, Tensor]] = []
        for inner, outer in pairwise(widths):
            bound = (6 / (inner + outer)) ** 0.5  # Glorot, as scikit-learn starts
            drawn = [(torch.rand(inner + 1, outer, generator=g) * 2 - 1) * bound for g in generators]
            whole = torch.stack(drawn).to(self.device)
            self.layers.append((whole[:, 1:].clone().requires_grad_(), whole[:, :1].clone().requires_grad_()))
        optimizer = torch.optim.Adam([part for layer in self.layers for part in layer], lr=self.lr)
        count, size = len(features), min(self.batch_size, len(features))
        for _ in range(self.epochs):
            order = torch.stack([torch.randperm(count, generator=g) for g in generators]).to(self.device)
            for batch in order.split(size, dim=1):
                error = 0.5 * (self._forward(features[batch]) - values[batch]).square().mean(dim=1).sum()
                decay = 0.5 * self.penalty * sum(weight.square().sum() for weight, _ in self.layers) / batch.shape[1]
                optimizer.zero_grad()
                (error + decay).backward()
                optimizer.step()
        return self

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n,), or (members, n) where there are several."""
        parts = [self._forward(part.expand(self.members, -1, -1)) for part in self._tensor(x).split(8192)]
        found = torch.cat(parts, dim=1).double().cpu().numpy()
        return found[0] if self.members == 1 else found

    def _forward(self, x: Tensor) -> Tensor:
        for number, (weight, bias) in enumerate(self.layers):
            x = torch.baddbmm(bias, x, weight)
            if number < len(self.layers) - 1:
                x = x.relu()
        return x.squeeze(2)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self.device)


class Ensemble:
    """Predictors that differ in their seeds alone.

    Args:
        build: From a seed to a predictor.
        seeds: One for each member.
    """

    def __init__(self, build: Callable[[int], Predictor], seeds: Sequence[int]) -> None:
        self.members = [build(seed) for seed in seeds]

    def fit(self, x: np.ndarray, y: np.ndarray) -> Ensemble:
        """Fit each."""
        for member in self.members:
            member.fit(x, y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(members, n)."""
        return np.stack([member.predict(x) for member in self.members])


def predictor(name: str, seed: int = 0, members: int = 1, **options: Any) -> Predictor:
    """A predictor by name, with the paper's settings.

    Args:
        name: `mlp`; `forest`, 1,000 trees of depth 10; `boosting`, 1,000 rounds of trees of depth 20; `ridge`.
        seed: Of the first member.
        members: Of an ensemble.
        **options: Other settings: of [`MLP`][saccade.efficiency.predictors.MLP],
            [`Ridge`][saccade.efficiency.predictors.Ridge], or of scikit-learn's `RandomForestRegressor` and
            `HistGradientBoostingRegressor`.

    Returns:
        Not fitted yet.

    Raises:
        ValueError: Another name.

    Example:
        >>> predictor("forest", n_estimators=10).fit(np.eye(4), np.arange(4.0)).predict(np.eye(4)).shape
        (4,)
    """
    if name == "mlp":
        return MLP(members=members, seed=seed, **options)
    if name not in BUILDERS:
        raise ValueError(f"a predictor is one of mlp, {', '.join(BUILDERS)}, not {name!r}")
    build = BUILDERS[name]
    if members == 1:
        return build(seed, **options)
    return Ensemble(lambda own: build(own, **options), range(seed, seed + members))


def _forest(seed: int, **options: Any) -> Predictor:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(**{"n_estimators": 1000, "max_depth": 10, "random_state": seed, **options})


def _boosting(seed: int, **options: Any) -> Predictor:
    from sklearn.ensemble import HistGradientBoostingRegressor

    settings = {"max_iter": 1000, "max_depth": 20, "min_samples_leaf": 1, "early_stopping": False, "random_state": seed}
    return HistGradientBoostingRegressor(**{**settings, **options})


BUILDERS: dict[str, Callable[..., Predictor]] = {
    "forest": _forest,
    "boosting": _boosting,
    "ridge": lambda seed, **options: Ridge(**options),
}


def _with_constant(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
