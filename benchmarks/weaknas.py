"""WeakNAS: a round over a table of NAS-Bench-101's size, expected improvement, and the ensemble of perceptrons.

Limit: a fit to a few hundred rows, and one pass of the predictor over the table.
"""

import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from saccade.bench import Comparison
from saccade.efficiency import MLP, TabularBenchmark, WeakPredictorSearch, rank

CELLS, TARGET = 423_624, 5.0


def comparisons() -> Iterator[Comparison]:
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (CELLS, 45)).astype(float)
    values = 90 + features @ rng.normal(size=45) * 0.3
    table = TabularBenchmark(features, {"valid": values})
    names = ["ridge", "forest", *(["mlp"] if torch.cuda.is_available() else [])]
    settings = {"forest": {"n_estimators": 60, "n_jobs": -1}, "mlp": {"device": "cuda"}}
    for name in names:

        def one_round(name: str = name) -> None:
            search = WeakPredictorSearch(
                table, table.oracle("valid"), name, init=100, budget=110, options=settings.get(name)
            )
            search.run()

        yield Comparison(
            name=f"a round over {CELLS:,} cells, {name}",
            ours=one_round,
            peer=lambda: time.sleep(TARGET),
            peer_name=f"the target of {TARGET:.0f} s",
            limit="one pass over the table",
        )
    some = 4_000
    predictions, observed = rng.normal(size=(5, some)), rng.normal(size=100)

    def one_by_one() -> list[int]:
        """Expected improvement of each architecture by itself."""
        best, gains = observed.max(), []
        for column in predictions.T:
            std = column.std() / 5
            ratio = (column.mean() - best) / std
            gains.append(std * (ratio * norm.cdf(ratio) + norm.pdf(ratio)))
        return sorted(range(some), key=lambda row: -gains[row])

    yield Comparison(
        name=f"expected improvement of {some:,} architectures, 5 predictors",
        ours=lambda: rank("ei", predictions, observed),
        peer=one_by_one,
        peer_name="one architecture at a time",
        target=10.0,
        limit="passes over members x architectures",
    )
    warnings.filterwarnings("ignore", category=ConvergenceWarning)  # twenty epochs are asked for
    x, y = features[:200], rng.normal(size=200)
    ours = MLP(hidden=(256,) * 4, members=5, epochs=20)
    peers = [
        MLPRegressor(hidden_layer_sizes=(256,) * 4, max_iter=20, n_iter_no_change=100, random_state=seed)
        for seed in range(5)
    ]
    yield Comparison(
        name="five perceptrons of 4 x 256, 200 samples, 20 epochs",
        ours=lambda: ours.fit(x, y),
        peer=lambda: [peer.fit(x, y) for peer in peers],
        peer_name="scikit-learn",
        target=1.0,
        limit="six products a layer and step",
    )
