"""WeakNAS: a sequence of weak predictors, each of which decides where the next few evaluations go.

Wu, Dai, Chen, Chen, Liu, Wang, Yuan: *Stronger NAS with Weaker Predictors* (NeurIPS 2021, arXiv:2102.10490).

One predictor that is good everywhere needs many evaluated architectures. But only the good ones matter: a predictor
that is fitted to what is known ranks the whole space, the next few are drawn from the top of its ranking, and the
next predictor knows them too. Each is poor globally, and better where it counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy.stats import kendalltau, spearmanr

from saccade.efficiency.acquisition import Acquisition, rank
from saccade.efficiency.predictors import Predictor
from saccade.efficiency.search import Search, SearchResult, fit_and_predict
from saccade.efficiency.search_space import Oracle, SearchSpace, TabularBenchmark


def pool_schedule(start: int, end: int, rounds: int, decay: float = 0.96) -> list[int]:
    """Sizes of the pool that shrink exponentially from one to another.

    Args:
        start: First.
        end: Last.
        rounds: How many.
        decay: Below 1: the smaller, the faster.

    Returns:
        Whole numbers, rounded down; the start alone for one round.

    Raises:
        ValueError: Sizes or rounds below 1, or another decay.

    Example:
        >>> pool_schedule(1000, 10, 5, decay=0.9)
        [1000, 82, 15, 10, 10]
    """
    if min(start, end, rounds) < 1 or not 0 < decay < 1:
        raise ValueError(
            f"sizes and rounds are at least 1 and decay is in (0, 1), not {start}, {end}, {rounds}, {decay}"
        )
    if rounds == 1:
        return [start]
    y = decay ** np.linspace(0, 99, rounds)
    scaled = (y - y.min()) / (y.max() - y.min()) * (start - end) + end
    return [int(size) for size in scaled]


class WeakPredictorSearch(Search):
    """The search by weak predictors.

    Args:
        space: What is searched.
        evaluate: From `space.describe(key)` to a value; higher is better.
        predictor: `mlp`, `forest`, `boosting`, `ridge`, or one's own with `fit` and `predict`.
        init: Uniform samples to begin with.
        per_round: Evaluations between two fits.
        pool: The top ranks from which they are drawn; or first and last size of a schedule.
        draw: `uniform` from the pool, or `greedy`, its best.
        acquisition: Ranks by an ensemble instead, and takes the best; one of
            [`rank`][saccade.efficiency.acquisition.rank]'s rules.
        ensemble: Its members.
        options: Of the predictor, where it is a name.
        decay: Of the schedule.
        free_top1: Whether the best of each ranking counts as found without being charged, as the paper counts. It is
            asked of the oracle all the same.
        **kwargs: `budget`, `seed`, `workers`, `state`, `on_evaluated` of [`Search`][saccade.efficiency.search.Search].

    Raises:
        ValueError: A budget below `init`, `init` below 2, `per_round` below 1, a pool below `per_round`, unknown
            predictor, draw or acquisition.

    Note:
        Source: arXiv:2102.10490, algorithm 1. Where the pool holds fewer than `per_round` unknown architectures, the
        best-ranked unknown ones follow. Values are normalised by what is known, not by the table.

    Example:
        >>> from saccade.efficiency.search_space import ChoiceSpace
        >>> space = ChoiceSpace({name: range(4) for name in "abcde"})
        >>> search = WeakPredictorSearch(
        ...     space, lambda choice: sum(choice.values()), "ridge", init=10, per_round=5, pool=10, budget=40)
        >>> search.run().best_value
        15.0
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluate: Oracle,
        predictor: str | Predictor = "mlp",
        init: int = 20,
        per_round: int = 10,
        pool: int | tuple[int, int] = 100,
        draw: Literal["uniform", "greedy"] = "uniform",
        acquisition: Acquisition | None = None,
        ensemble: int = 5,
        options: dict[str, Any] | None = None,
        decay: float = 0.96,
        free_top1: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(space, evaluate, **kwargs)
        if init < 2 or per_round < 1 or self.budget < init:
            raise ValueError(
                f"init is at least 2 and at most the budget, per_round at least 1; they are {init}, {per_round}, "
                f"the budget {self.budget}"
            )
        rounds = max(1, math.ceil((self.budget - init) / per_round))
        self.pools = [pool] * rounds if isinstance(pool, int) else pool_schedule(*pool, rounds, decay)
        if min(self.pools) < per_round:
            raise ValueError(f"a pool of {min(self.pools)} holds fewer than the {per_round} of a round")
        if draw not in ("uniform", "greedy"):
            raise ValueError(f"draw is 'uniform' or 'greedy', not {draw!r}")
        if acquisition is not None:
            rank(acquisition, np.zeros((1, 1)), np.zeros(1), np.random.default_rng(0))
        if ensemble < 1:
            raise ValueError(f"an ensemble has at least one member, not {ensemble}")
        self.predictor, self.options = predictor, options or {}
        self.init, self.per_round, self.pick, self.acquisition = init, per_round, draw, acquisition
        self.members, self.free_top1 = 1 if acquisition is None else ensemble, free_top1
        self.predictions: np.ndarray | None = None
        self.free: dict[int, tuple[str, float]] = {}
        self.pool_members: list[np.ndarray] = []
        self.round_predictions: list[np.ndarray] = []
        self.rounds: list[dict[str, Any]] = []

    def settings(self) -> dict[str, Any]:
        """With everything that steers it; one's own predictor is known by its class."""
        own = self.predictor if isinstance(self.predictor, str) else type(self.predictor).__name__
        return super().settings() | {
            "predictor": own,
            "options": self.options,
            "init": self.init,
            "per_round": self.per_round,
            "pools": self.pools,
            "draw": self.pick,
            "acquisition": self.acquisition,
            "members": self.members,
        }

    def propose(self) -> list[str]:
        """Uniform samples, then from the top of the ranking."""
        if not self.batches:
            return self.draw(self.space.keys, self.init)
        order = self._rank(len(self.batches) - 1)
        ranked = [self.space.keys[row] for row in order.tolist()]
        size = self.pools[min(len(self.batches), len(self.pools)) - 1]
        new = self.unevaluated(ranked[:size])
        if self.acquisition is not None or len(new) < self.per_round:
            return self.unevaluated(ranked)[: self.per_round]
        return new[: self.per_round] if self.pick == "greedy" else self.draw(new, self.per_round)

    def run(self) -> SearchResult:
        """Search; with `free_top1` a last ranking follows, whose best counts too."""
        result = super().run()
        if self.free_top1:
            self._rank(len(self.batches))
            result = self.result()
        return result

    def result(self) -> SearchResult:
        """With the predictions of the last fit, and what is known of each round."""
        result = super().result()
        result.predictions = None if self.predictions is None else self.predictions.mean(axis=0)
        result.rounds = list(self.rounds)
        if self.free:
            best, history = -math.inf, []
            for queries, value in result.history:
                found = max([value, *(free for when, (_, free) in self.free.items() if when <= queries)])
                best = max(best, found)
                history.append((queries, best))
            result.history = history
            key, value = max(self.free.values(), key=lambda found: found[1])
            if value > result.best_value:
                result.best_key, result.best_value = key, value
        return result

    def _rank(self, number: int) -> np.ndarray:
        """Fit, rank the whole space, and note how good the ranking is."""
        known = self._order()
        seed = self.seed + number * self.members
        self.predictions = fit_and_predict(
            self.predictor, self.options, seed, self.members, self.space, known, self.values
        )
        observed = np.array([self.values[key] for key in known])
        rule: Acquisition = self.acquisition or "mean"
        order = rank(rule, self.predictions, observed, np.random.default_rng([self.seed, number, 1]))
        if self.free_top1:
            top = self.space.keys[int(order[0])]
            value = self.values.get(top)
            self.free[len(known)] = (top, float(self.evaluate(self.space.describe(top))) if value is None else value)
        self.pool_members.append(order[: self.pools[min(number, len(self.pools) - 1)]])
        self.round_predictions.append(self.predictions.mean(axis=0).astype(np.float32))
        self.rounds.append({"evaluated": len(known), "best": float(observed.max())})
        return order


def round_quality(
    search: WeakPredictorSearch, table: TabularBenchmark, metric: str, shares: Sequence[float] = (0.01, 0.05, 0.1)
) -> list[dict[str, float]]:
    """How good the pool of each round was, where the whole table is known.

    Args:
        search: That was run.
        table: Its space.
        metric: Which the oracle gave.
        shares: Top shares of the table.

    Returns:
        For each round: `evaluated`; `mean` of the pool; for each share `top_1%` and so on, how much of the pool belongs
        to it; `kendall` and `spearman`, the rank correlation of the predictor with the truth in the pool, and
        `spearman_all` in the whole table.
    """
    values = table.values(metric)
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values)) / len(values)
    found = []
    for row, members, guess in zip(search.rounds, search.pool_members, search.round_predictions, strict=True):
        shares_of = {f"top_{share:.0%}": float((ranks[members] < share).mean()) for share in shares}
        correlation = rank_correlation(guess[members], values[members])
        everywhere = {"spearman_all": rank_correlation(guess, values)["spearman"]}
        means = {"evaluated": row["evaluated"], "mean": float(values[members].mean())}
        found.append({**means, **shares_of, **correlation, **everywhere})
    return found


def rank_correlation(predictions: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Kendall's and Spearman's correlation of predictions with the truth.

    Args:
        predictions: (n,).
        values: (n,).

    Returns:
        `kendall` and `spearman`; NaN where one of them is constant.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))["spearman"]
        0.5
    """
    if len(set(predictions)) < 2 or len(set(values)) < 2:
        return {"kendall": math.nan, "spearman": math.nan}
    return {
        "kendall": float(kendalltau(predictions, values).statistic),
        "spearman": float(spearmanr(predictions, values).statistic),
    }
