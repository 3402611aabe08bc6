"""k-means of many short rows against scikit-learn's, one start each; both end at the same inertia, within 2 %.

Limit: N K d multiply-adds and N K comparisons in an iteration over all rows; bounds spare most rows both.
"""

from collections.abc import Iterator

import torch
from sklearn.cluster import KMeans

from saccade.bench import Comparison
from saccade.ops.clustering import kmeans


def comparison(rows: int, width: int, k: int, target: float, seed: int = 0) -> Comparison:
    """Both sides give their inertia."""
    x = 0.05 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    array = x.numpy()
    return Comparison(
        name=f"k-means of {rows:,} x {width} rows, K = {k}, one start",
        ours=lambda: kmeans(x, k, n_init=1, seed=seed).inertia,
        peer=lambda: float(KMeans(k, n_init=1, random_state=seed).fit(array).inertia_),
        peer_name="scikit-learn",
        target=target,
        limit="N K d multiply-adds and N K comparisons an iteration, for the rows that no bound spares",
    )


def comparisons() -> Iterator[Comparison]:
    yield comparison(150_000, 3, 100, 3.0)
    yield comparison(150_000, 3, 16, 1.0)
    yield comparison(400_000, 3, 32, 1.0)
    yield comparison(30_000, 5, 50, 1.0)
