"""Searches."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor

from saccade.efficiency import (
    MLP,
    ChoiceSpace,
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    Ridge,
    Search,
    StrongPredictorSearch,
    TabularBenchmark,
    WeakPredictorSearch,
    one_hot,
    pool_schedule,
    predictor,
    rank_correlation,
    round_quality,
    sample_efficiency,
)
from saccade.worlds.landscapes import landscape

WORLD = landscape(seed=0, layers=5)
TABLE = TabularBenchmark(one_hot(WORLD.codes, (3,) * 5), {"valid": WORLD.accuracy}, WORLD.keys)
ORACLE = TABLE.oracle("valid")
SEARCHES: dict[str, Callable[..., Search]] = {
    "random": RandomSearch,
    "strong": lambda *args, **kwargs: StrongPredictorSearch(*args, top_k=5, predictor="ridge", **kwargs),
    "evolution": lambda *args, **kwargs: RegularizedEvolution(*args, population=8, tournament=3, **kwargs),
    "local": LocalSearch,
    "weak": lambda *args, **kwargs: WeakPredictorSearch(*args, predictor="ridge", init=10, pool=30, **kwargs),
    "ei": lambda *args, **kwargs: WeakPredictorSearch(
        *args, predictor="forest", options={"n_estimators": 5}, init=10, acquisition="ei", ensemble=3, **kwargs
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_budget_is_kept_to_the_last_evaluation(name: str) -> None:
    asked: list[str] = []
    result = SEARCHES[name](TABLE, lambda key: asked.append(key) or ORACLE(key), budget=47, seed=1).run()
    assert len(asked) == len(set(asked)) == 47
    assert list(result.evaluated) == asked
    assert [queries for queries, _ in result.history] == list(range(1, 48))
    assert result.best_value == max(map(ORACLE, asked)) == result.history[-1][1] == ORACLE(result.best_key)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_killed_search_comes_to_the_same_result(name: str, tmp_path: Path) -> None:
    whole = SEARCHES[name](TABLE, ORACLE, budget=40, seed=3).run()
    state, calls = tmp_path / "state.json", 0

    def failing(key: str) -> float:
        nonlocal calls
        calls += 1
        if calls in (5, 17, 18, 33):
            raise KeyboardInterrupt if calls == 17 else OSError("the machine is gone")
        return ORACLE(key)

    for _ in range(5):
        search = SEARCHES[name](TABLE, failing, budget=40, seed=3, state=state)
        try:
            result = search.run()
            break
        except (OSError, KeyboardInterrupt):
            assert search.values == json.loads(state.read_text())["values"]
    assert result.evaluated == whole.evaluated
    assert result.history == whole.history
    assert calls == 40 + 4


@pytest.mark.parametrize("name", SEARCHES)
def test_oracles_at_a_time_change_nothing(name: str) -> None:
    alone, together = (SEARCHES[name](TABLE, ORACLE, budget=35, seed=2, workers=n).run() for n in (1, 4))
    assert alone.evaluated == together.evaluated
    assert list(alone.evaluated) == list(together.evaluated)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_whole_small_space_is_searched_to_its_end(name: str) -> None:
    space = ChoiceSpace({"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]})
    with pytest.warns(UserWarning, match="the budget of 100 is cut"):
        search = (
            SEARCHES[name](space, lambda c: -((c["a"] - 2) ** 2) - c["b"], budget=100)
            if name != "weak"
            else (
                WeakPredictorSearch(
                    space, lambda c: -((c["a"] - 2) ** 2) - c["b"], "ridge", init=4, per_round=3, pool=5
                )
            )
        )
    result = search.run()
    assert len(result.evaluated) == 16
    assert result.best_value == 0
    assert space.describe(result.best_key) == {"a": 2, "b": 0}


def test_weak_predictors_beat_one_and_chance() -> None:
    regret: dict[str, list[float]] = {"weak": [], "strong": [], "random": []}
    for seed in range(6):
        world = landscape(seed, layers=6)
        table = TabularBenchmark(one_hot(world.codes, (3,) * 6), {"valid": world.accuracy}, world.keys)
        for name, values in regret.items():
            found = SEARCHES[name](table, table.oracle("valid"), budget=60, seed=seed).run()
            values.append(table.best("valid")[1] - found.best_value)
    means = {name: np.mean(values) for name, values in regret.items()}
    assert means["weak"] < 0.6 * means["strong"] < means["random"]


def test_local_search_climbs_and_starts_anew() -> None:
    peaks = {(1, 1): 5.0, (6, 6): 9.0}
    space = ChoiceSpace({"x": list(range(8)), "y": list(range(8))})

    def oracle(choice: dict[str, int]) -> float:
        return max(top - abs(choice["x"] - x) - abs(choice["y"] - y) for (x, y), top in peaks.items())

    results = [LocalSearch(space, oracle, budget=64, seed=seed).run() for seed in range(4)]
    assert all(result.best_value == 9.0 for result in results)
    assert np.mean([sample_efficiency(result, 9.0) or 64 for result in results]) < 50


def test_evolution_lets_the_oldest_die() -> None:
    search = RegularizedEvolution(TABLE, ORACLE, population=5, tournament=5, budget=30, seed=0)
    search.run()
    born = [key for batch in search.batches for key in batch]
    for number in range(5, len(born)):
        alive = born[number - 5 : number]
        parent = max(alive, key=lambda key: ORACLE(key))
        assert born[number] in TABLE.neighbours(parent)


class Remembering(Ridge):
    """Keeps what it was fitted to."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Ridge:
        self.seen = [*getattr(self, "seen", []), (len(x), y)]
        return super().fit(x, y)


def test_values_are_normalised_by_what_is_known() -> None:
    model = Remembering()
    result = WeakPredictorSearch(TABLE, ORACLE, model, init=10, per_round=5, pool=20, budget=30).run()
    values = np.array(list(result.evaluated.values()))
    assert [count for count, _ in model.seen] == [10, 15, 20, 25]
    for count, normalised in model.seen:
        known = values[:count]
        np.testing.assert_allclose(normalised, (known - known.mean()) / known.std())


@pytest.mark.parametrize("draw", ["uniform", "greedy"])
def test_draws_come_from_the_top_of_the_ranking(draw: Any) -> None:
    search = WeakPredictorSearch(TABLE, ORACLE, Ridge(), init=10, per_round=5, pool=60, draw=draw, budget=40)
    search.run()
    for batch, pool in zip(search.batches[1:], search.pool_members, strict=True):
        names = [TABLE.keys[row] for row in pool]
        assert len(pool) == 60
        assert set(batch) <= set(names)
        if draw == "greedy":
            before = {key for earlier in search.batches[: search.batches.index(batch)] for key in earlier}
            assert batch == [key for key in names if key not in before][:5]


def test_a_pool_that_is_used_up_is_left_downwards() -> None:
    search = WeakPredictorSearch(TABLE, ORACLE, Ridge(), init=10, per_round=10, pool=10, budget=60)
    search.run()
    assert len(search.values) == 60
    assert any(
        not {TABLE.rows[key] for key in batch} <= set(pool.tolist())
        for batch, pool in zip(search.batches[1:], search.pool_members, strict=True)
    )


def test_the_best_of_a_ranking_is_free_only_where_that_is_asked_for() -> None:
    charged, free = (
        WeakPredictorSearch(TABLE, ORACLE, Ridge(), init=10, per_round=5, pool=50, budget=30, seed=4, free_top1=value)
        for value in (False, True)
    )
    plain, gifted = charged.run(), free.run()
    assert plain.evaluated == gifted.evaluated
    assert not charged.free
    assert sorted(free.free) == [10, 15, 20, 25, 30]
    assert gifted.best_value == max(plain.best_value, *(value for _, value in free.free.values()))
    assert all(a <= b for (_, a), (_, b) in zip(plain.history, gifted.history, strict=True))


def test_rounds_are_judged_by_the_whole_table() -> None:
    search = WeakPredictorSearch(TABLE, ORACLE, Ridge(), init=20, per_round=10, pool=24, budget=60)
    search.run()
    quality = round_quality(search, TABLE, "valid")
    assert [row["evaluated"] for row in quality] == [20, 30, 40, 50]
    values = TABLE.values("valid")
    top = set(np.argsort(-values)[: math.ceil(0.1 * len(values))].tolist())
    for row, pool in zip(quality, search.pool_members, strict=True):
        assert row["mean"] == pytest.approx(values[pool].mean())
        guess = search.round_predictions[quality.index(row)]
        assert row["spearman_all"] == pytest.approx(spearmanr(guess, values).statistic)
        assert row["kendall"] == pytest.approx(kendalltau(guess[pool], values[pool]).statistic)
        assert row["top_10%"] == pytest.approx(np.mean([member in top for member in pool.tolist()]))


def test_any_regressor_serves() -> None:
    search = WeakPredictorSearch(TABLE, ORACLE, KNeighborsRegressor(3), init=10, per_round=10, pool=40, budget=60)
    assert search.run().best_value > np.quantile(TABLE.values("valid"), 0.9)


@pytest.mark.parametrize("name", ["mlp", "forest", "boosting", "ridge"])
def test_predictors_rank_what_they_have_not_seen(name: str) -> None:
    options: dict[str, Any] = {
        "mlp": {"hidden": (64, 64), "epochs": 60},
        "forest": {"n_estimators": 30},
        "boosting": {"max_iter": 50},
        "ridge": {},
    }[name]
    x, y = TABLE.features, TABLE.values("valid")
    y = (y - y.mean()) / y.std()
    for members in (1, 3):
        model = predictor(name, 0, members, **options)
        model.fit(x[::2], y[::2])
        found = np.atleast_2d(model.predict(x))
        assert found.shape == (members, len(x))
        assert rank_correlation(found.mean(0)[1::2], y[1::2])["spearman"] > 0.7


def test_perceptrons_learn_as_those_of_scikit_learn() -> None:
    x, y = TABLE.features, TABLE.values("valid")
    y = (y - y.mean()) / y.std()
    ours = MLP((32, 32), members=6, epochs=40).fit(x[::2], y[::2]).predict(x[1::2])
    theirs = [
        MLPRegressor(hidden_layer_sizes=(32, 32), max_iter=40, n_iter_no_change=99, random_state=seed)
        .fit(x[::2], y[::2])
        .predict(x[1::2])
        for seed in range(6)
    ]
    errors = [np.mean((np.stack(list(found)) - y[1::2]) ** 2, axis=1) for found in (ours, theirs)]
    assert abs(errors[0].mean() - errors[1].mean()) < 3 * (errors[0].std() + errors[1].std()) / 6**0.5
    assert MLP((8,), epochs=3, seed=5).fit(x, y).predict(x[:2]).tolist() == (
        MLP((8,), epochs=3, seed=5).fit(x, y).predict(x[:2]).tolist()
    )


def test_ridge_solves_its_equations() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    weights = Ridge(penalty=2.0).fit(x, y).weights
    wide = np.concatenate([x, np.ones((30, 1))], axis=1)
    np.testing.assert_allclose(wide.T @ (wide @ weights - y) + 2.0 * weights, 0, atol=1e-10)


def test_failures_keep_what_was_evaluated() -> None:
    def oracle(key: str) -> float:
        if key == TABLE.keys[200]:
            raise OSError("out of memory")
        return ORACLE(key)

    search = RandomSearch(TABLE, oracle, budget=len(TABLE), workers=3)
    with pytest.raises(OSError, match="out of memory"):
        search.run()
    result = search.result()
    assert result.evaluated
    assert TABLE.keys[200] not in result.evaluated


def test_a_state_of_another_search_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    RandomSearch(TABLE, ORACLE, budget=5, state=state).run()
    with pytest.raises(ValueError, match="another search: it has search=RandomSearch"):
        LocalSearch(TABLE, ORACLE, budget=5, state=state).run()
    assert len(RandomSearch(TABLE, ORACLE, budget=9, state=state).run().evaluated) == 9
    state.write_text("{")
    with pytest.raises(ValueError, match="no state of a search"):
        RandomSearch(TABLE, ORACLE, budget=5, state=state).run()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSearch(TABLE, ORACLE, budget=0), "at least 1"),
        (lambda: WeakPredictorSearch(TABLE, ORACLE, init=20, budget=10), "at most the budget"),
        (lambda: WeakPredictorSearch(TABLE, ORACLE, init=1), "init is at least 2"),
        (lambda: WeakPredictorSearch(TABLE, ORACLE, per_round=0), "per_round at least 1"),
        (lambda: WeakPredictorSearch(TABLE, ORACLE, pool=5), "fewer than the 10"),
        (lambda: WeakPredictorSearch(TABLE, ORACLE, pool=(100, 5)), "a pool of 5"),
        (lambda: WeakPredictorSearch(TABLE, ORACLE, draw="best"), "'uniform' or 'greedy'"),  # type: ignore[arg-type]
        (lambda: WeakPredictorSearch(TABLE, ORACLE, acquisition="x"), "one of mean, ucb"),  # type: ignore[arg-type]
        (lambda: WeakPredictorSearch(TABLE, ORACLE, "tree").run(), "mlp, forest, boosting, ridge, not 'tree'"),
        (lambda: StrongPredictorSearch(TABLE, ORACLE, top_k=99), "1 to 98 is accepted"),
        (lambda: RegularizedEvolution(TABLE, ORACLE, population=0), "at least 1"),
        (lambda: RandomSearch(TABLE, lambda key: math.nan).run(), "the oracle gave nan for"),
        (lambda: RandomSearch(TABLE, ORACLE).result(), "nothing was evaluated"),
        (lambda: pool_schedule(10, 1, 0), "at least 1"),
        (lambda: Ridge(0), "positive"),
        (lambda: MLP(hidden=()), "at least 1"),
        (lambda: landscape(0, choices=11), "from 2 to 10"),
    ],
)
def test_bad_input(unchecked: None, make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
