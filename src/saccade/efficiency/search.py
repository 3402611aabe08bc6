"""Searches that ask an oracle for few of many architectures: the common loop, its state, and the usual rivals.

A search proposes batches; what it proposes depends on the seed and on the batches before alone. So a search that was
interrupted and one that was not come to the same result, however many oracles run at a time.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saccade.efficiency.predictors import Predictor, predictor
from saccade.efficiency.search_space import Oracle, SearchSpace


@dataclass
class SearchResult:
    """What a search found.

    Args:
        best_key: Name of the best architecture.
        best_value: Its value.
        history: After each new evaluation, how many there were and the best value so far.
        evaluated: Values by name, in the order in which they were asked for.
        predictions: The last predictor's, for `space.keys`; `None` for searches without one.
        rounds: What is known of each round of a search with predictors.
    """

    best_key: str
    best_value: float
    history: list[tuple[int, float]]
    evaluated: dict[str, float]
    predictions: np.ndarray | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def best_after(self, queries: int) -> float:
        """The best value after so many evaluations; of fewer where there were not so many.

        Raises:
            ValueError: Fewer than one.
        """
        if queries < 1:
            raise ValueError(f"queries have to be at least 1, not {queries}")
        return self.history[min(queries, len(self.history)) - 1][1]


def sample_efficiency(result: SearchResult, optimum: float, tolerance: float = 0.0) -> int | None:
    """How many evaluations it took to come to the optimum.

    Args:
        result: Of a search.
        optimum: The best value of the space.
        tolerance: How near is near enough.

    Returns:
        Evaluations; `None` where the optimum was not reached.

    Example:
        >>> sample_efficiency(SearchResult("b", 2.0, [(1, 1.0), (2, 2.0)], {"a": 1.0, "b": 2.0}), optimum=2.0)
        2
    """
    return next((queries for queries, best in result.history if best >= optimum - tolerance), None)


class Search(ABC):
    """The loop: propose a batch, evaluate what is new of it, until the budget is spent.

    Args:
        space: What is searched.
        evaluate: From `space.describe(key)` to a value; higher is better.
        budget: Evaluations of different architectures; more than the space holds are cut with a warning.
        seed: Of everything that is random.
        workers: Oracles that run at a time, each in a thread.
        state: A JSON file that is written after each evaluation, and continued from where it is there.
        on_evaluated: Called with the number of evaluations and the budget.

    Raises:
        ValueError: A budget or number of workers below 1.
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluate: Oracle,
        budget: int = 100,
        seed: int = 0,
        workers: int = 1,
        state: str | Path | None = None,
        on_evaluated: Callable[[int, int], None] | None = None,
    ) -> None:
        if budget < 1 or workers < 1:
            raise ValueError(f"budget and workers have to be at least 1, not {budget} and {workers}")
        if budget > len(space):
            warnings.warn(f"the space has {len(space)} members: the budget of {budget} is cut to it", stacklevel=3)
        self.space, self.evaluate, self.budget, self.seed = space, evaluate, min(budget, len(space)), seed
        self.workers, self.state, self.on_evaluated = workers, None if state is None else Path(state), on_evaluated
        self.batches: list[list[str]] = []
        self.values: dict[str, float] = {}

    @abstractmethod
    def propose(self) -> list[str]:
        """The next batch, from `batches` and `values`; it may hold architectures that are known. Empty: it is done."""

    def settings(self) -> dict[str, Any]:
        """What has to be the same for a state to be continued."""
        return {"search": type(self).__name__, "seed": self.seed, "members": len(self.space)}

    def run(self) -> SearchResult:
        """Search.

        Returns:
            The result.

        Raises:
            ValueError: The oracle gave something that is not finite, or the state is one of another search. What an
                oracle raises comes through; everything evaluated before is in the state and in `result()`.
        """
        self._load()
        while True:
            if self.batches:
                self._evaluate(self.batches[-1])
            if len(self.values) >= self.budget:
                break
            batch = self.propose()
            if not batch:
                break
            new = [key for key in dict.fromkeys(batch) if key not in self.values]
            over = set(new[self.budget - len(self.values) :])
            self.batches.append([key for key in batch if key not in over])
        return self.result()

    def result(self) -> SearchResult:
        """What is known so far.

        Raises:
            ValueError: Nothing was evaluated.
        """
        if not self.values:
            raise ValueError("nothing was evaluated yet")
        evaluated = {key: self.values[key] for key in self._order()}
        best = np.maximum.accumulate(list(evaluated.values()))
        key = max(evaluated, key=lambda name: evaluated[name])
        return SearchResult(key, evaluated[key], list(enumerate(best.tolist(), 1)), evaluated)

    def rng(self) -> np.random.Generator:
        """The generator of the next batch."""
        return np.random.default_rng([self.seed, len(self.batches)])

    def unevaluated(self, keys: Sequence[str]) -> list[str]:
        """Those of some keys that are not known."""
        return [key for key in keys if key not in self.values]

    def draw(self, keys: Sequence[str], count: int) -> list[str]:
        """Some of the keys, uniformly without replacement."""
        places = self.rng().choice(len(keys), size=min(count, len(keys)), replace=False)
        return [keys[place] for place in places.tolist()]

    def _order(self) -> list[str]:
        """Evaluated architectures in the order in which they were proposed."""
        return [key for key in dict.fromkeys(key for batch in self.batches for key in batch) if key in self.values]

    def _evaluate(self, batch: Sequence[str]) -> None:
        """Evaluate what is new of a batch; what is done is kept, also where another one fails."""
        waiting = iter(self.unevaluated(list(dict.fromkeys(batch))))
        running: dict[Future[float], str] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(self.workers) as pool:
            while True:
                while failure is None and len(running) < self.workers and (key := next(waiting, None)) is not None:
                    running[pool.submit(self.evaluate, self.space.describe(key))] = key
                if not running:
                    break
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(done)
                    try:
                        self._keep(key, done.result())
                    except Exception as error:
                        failure = failure or error
        if failure is not None:
            raise failure

    def _keep(self, key: str, value: float) -> None:
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"the oracle gave {value} for {self.space.describe(key)}; a finite value is accepted")
        self.values[key] = value
        self._save()
        if self.on_evaluated is not None:
            self.on_evaluated(len(self.values), self.budget)

    def _save(self) -> None:
        if self.state is None:
            return
        self.state.parent.mkdir(parents=True, exist_ok=True)
        partial = self.state.with_name(f"{self.state.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"settings": self.settings(), "batches": self.batches, "values": self.values}))
        partial.replace(self.state)

    def _load(self) -> None:
        if self.state is None or not self.state.is_file():
            return
        try:
            content = json.loads(self.state.read_text())
            settings, batches, values = content["settings"], content["batches"], content["values"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{self.state} is no state of a search; another file, or none, is accepted") from None
        own = json.loads(json.dumps(self.settings()))
        other = [name for name in own if settings.get(name) != own[name]]
        if other:
            came = ", ".join(f"{name}={settings.get(name)}" for name in other)
            raise ValueError(f"{self.state} belongs to another search: it has {came}")
        self.batches, self.values = batches, values


class RandomSearch(Search):
    """Uniformly, without replacement.

    Example:
        >>> from saccade.efficiency.search_space import ChoiceSpace
        >>> space = ChoiceSpace({"a": [0, 1, 2], "b": [0, 1, 2]})
        >>> RandomSearch(space, lambda choice: choice["a"] + choice["b"], budget=9).run().best_value
        4.0
    """

    def propose(self) -> list[str]:
        """All of it at once."""
        return self.draw(self.unevaluated(self.space.keys), self.budget - len(self.values))


class StrongPredictorSearch(Search):
    """One predictor, fitted once on uniform samples; its top ranks are evaluated.

    Args:
        space, evaluate, **kwargs: As for [`Search`][saccade.efficiency.search.Search].
        top_k: Evaluations that are left for the top ranks.
        predictor: A name, or one's own.
        options: Of the predictor, where it is a name.

    Raises:
        ValueError: `top_k` below 1, or a budget that leaves fewer than two samples to learn from.
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluate: Oracle,
        top_k: int = 1,
        predictor: str | Predictor = "mlp",
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(space, evaluate, **kwargs)
        if top_k < 1 or self.budget - top_k < 2:
            raise ValueError(f"top_k is {top_k} of a budget of {self.budget}: 1 to {self.budget - 2} is accepted")
        self.top_k, self.predictor, self.options = top_k, predictor, options or {}

    def settings(self) -> dict[str, Any]:
        """With the split of the budget."""
        return {**super().settings(), "top_k": self.top_k, "samples": self.budget - self.top_k}

    def propose(self) -> list[str]:
        """Samples, then the top ranks."""
        if not self.batches:
            return self.draw(self.space.keys, self.budget - self.top_k)
        keys = self._order()
        scores = fit_and_predict(self.predictor, self.options, self.seed, 1, self.space, keys, self.values)
        ranked = [self.space.keys[row] for row in np.argsort(-scores.mean(axis=0), kind="stable")]
        return self.unevaluated(ranked)[: self.budget - len(self.values)]


class RegularizedEvolution(Search):
    """The best of a few of the youngest has a child that differs in one decision; the oldest die (arXiv:1802.01548).

    Args:
        space, evaluate, **kwargs: As for [`Search`][saccade.efficiency.search.Search].
        population: Members that live.
        tournament: Members of whom the best has the child.

    Raises:
        ValueError: Fewer than one of either.
    """

    def __init__(
        self, space: SearchSpace, evaluate: Oracle, population: int = 50, tournament: int = 10, **kwargs: Any
    ) -> None:
        super().__init__(space, evaluate, **kwargs)
        if population < 1 or tournament < 1:
            raise ValueError(f"population and tournament have to be at least 1, not {population} and {tournament}")
        self.population, self.tournament = population, tournament

    def settings(self) -> dict[str, Any]:
        """With both numbers."""
        return {**super().settings(), "population": self.population, "tournament": self.tournament}

    def propose(self) -> list[str]:
        """A random population, then children; one that is known lives on without being asked for again."""
        if not self.batches:
            return self.draw(self.space.keys, min(self.population, self.budget))
        alive = [key for batch in self.batches for key in batch][-self.population :]
        children: list[str] = []
        rng = self.rng()
        while not children or children[-1] in self.values:
            if len(children) > 100 * self.population:  # everything near is known
                return [*children, *self.draw(self.unevaluated(self.space.keys), 1)]
            rivals = [
                alive[place] for place in rng.choice(len(alive), size=min(self.tournament, len(alive)), replace=False)
            ]
            near = self.space.neighbours(max(rivals, key=lambda key: self.values[key])) or list(self.space.keys)
            children.append(near[int(rng.integers(len(near)))])
            alive = [*alive, children[-1]][-self.population :]
        return children


class LocalSearch(Search):
    """All neighbours of the best, until none is better; then again from a random one (arXiv:2005.02960).

    Args:
        space, evaluate, **kwargs: As for [`Search`][saccade.efficiency.search.Search].
    """

    def propose(self) -> list[str]:
        """Neighbours of where it stands, or a new start."""
        place: str | None = None
        for batch in self.batches:
            best = max(batch, key=lambda key: self.values[key])
            place = best if place is None or self.values[best] > self.values[place] else None
        if place is not None and (near := self.space.neighbours(place)) and self.unevaluated(near):
            return near
        if place is not None:
            known = [key for key in self.space.neighbours(place) if self.values[key] > self.values[place]]
            if known:
                return known
        return self.draw(self.unevaluated(self.space.keys), 1)


def fit_and_predict(
    kind: str | Predictor,
    options: dict[str, Any],
    seed: int,
    members: int,
    space: SearchSpace,
    keys: Sequence[str],
    values: dict[str, float],
) -> np.ndarray:
    """Predictions for the whole space, by a predictor that is fitted to what is known.

    Args:
        kind: A name, or one's own.
        options: Of the predictor, where it is a name.
        seed: Of its first member.
        members: Of an ensemble.
        space: Whose `keys` are predicted.
        keys: Members that are known.
        values: Theirs.

    Returns:
        (members, n), in the units of the values.

    Raises:
        ValueError: The predictor gave something that is not finite, or of another shape.
    """
    known = np.array([values[key] for key in keys])
    centre, scale = known.mean(), known.std() or 1.0
    model = predictor(kind, seed, members, **options) if isinstance(kind, str) else kind
    model.fit(space.encode(keys), (known - centre) / scale)
    found = np.atleast_2d(np.asarray(model.predict(space.features), dtype=np.float64))
    if found.ndim != 2 or found.shape[1] != len(space) or not np.isfinite(found).all():
        raise ValueError(f"the predictor gave {found.shape} for {len(space)} architectures; finite (n,) is accepted")
    return found * scale + centre


def write_result(path: str | Path, space: SearchSpace, result: SearchResult) -> None:
    """Write a result as JSON.

    Args:
        path: The file.
        space: That was searched.
        result: Of the search.
    """
    content = asdict(result) | {"best": space.describe(result.best_key)}
    content.pop("predictions")
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
