"""k-means against plain Lloyd in float64, and what it promises of starts, empty clusters and bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.ops import clustering
from saccade.ops.clustering import assign, kmeans, squared_errors


def plain_lloyd(x: Tensor, centroids: Tensor, iters: int) -> tuple[Tensor, Tensor]:
    """All distances in every iteration; no bound."""
    for _ in range(iters):
        labels = torch.cdist(x, centroids).argmin(1)
        moved = torch.stack([x[labels == j].mean(0) for j in range(len(centroids))])
        if torch.equal(torch.cdist(x, moved).argmin(1), labels):
            return moved, labels
        centroids = moved
    return centroids, torch.cdist(x, centroids).argmin(1)


@pytest.mark.parametrize(("rows", "width", "k"), [(500, 3, 12), (400, 1, 7), (300, 20, 9), (200, 2, 40)])
def test_it_is_lloyds_iteration(rows: int, width: int, k: int) -> None:
    x = torch.randn(rows, width, dtype=torch.float64)
    start = x[torch.randperm(rows)[:k]]
    centroids, labels = plain_lloyd(x, start, 300)
    found = kmeans(x, k, start, iters=300, tol=0)
    assert torch.equal(found.labels, labels)
    torch.testing.assert_close(found.centroids, centroids)
    assert found.inertia == pytest.approx(float((x - centroids[labels]).square().sum()))


def test_labels_are_of_the_nearest_centroid_whatever_the_bounds_left_out() -> None:
    x = torch.randn(3000, 3)
    found = kmeans(x, 50, n_init=1)
    distances = torch.cdist(x.double(), found.centroids.double())
    own = distances.gather(1, found.labels[:, None]).squeeze(1)
    torch.testing.assert_close(own, distances.amin(1), atol=1e-6, rtol=0)
    assert torch.equal(assign(x, found.centroids), found.labels)
    torch.testing.assert_close(
        squared_errors(x, found.centroids, found.labels).double(), own.square(), atol=1e-6, rtol=0
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 4), st.integers(1, 60))
def test_any_rows_are_clustered_and_none_is_nearer_to_another_centroid(
    seed: int, rows: int, width: int, k: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (rows, width), generator=generator).double()  # many rows are equal
    k = min(k, rows)
    found = kmeans(x, k, n_init=2, seed=seed, tol=0)
    assert found.labels.shape == (rows,)
    own = squared_errors(x, found.centroids, found.labels)
    assert float((own - torch.cdist(x, found.centroids).square().amin(1)).abs().max()) < 1e-9
    if len(x.unique(dim=0)) <= k:
        assert found.inertia < 1e-12


def test_moving_and_scaling_all_rows_moves_and_scales_the_centroids() -> None:
    x = torch.randn(200, 3, dtype=torch.float64)
    here, there = kmeans(x, 6, seed=3), kmeans(10 * x + 7, 6, seed=3)
    assert torch.equal(here.labels, there.labels)
    torch.testing.assert_close(10 * here.centroids + 7, there.centroids)


def test_more_starts_are_never_worse_and_draws_depend_on_the_seed_alone() -> None:
    x = torch.randn(300, 2)
    few, many = kmeans(x, 12, n_init=1, seed=5), kmeans(x, 12, n_init=20, seed=5)
    assert many.inertia <= few.inertia
    torch.manual_seed(1)
    again = kmeans(x, 12, n_init=20, seed=5)
    assert torch.equal(again.centroids, many.centroids)
    assert kmeans(x, 12, n_init=1, seed=6).inertia != few.inertia


def test_a_cluster_that_runs_empty_is_put_at_the_farthest_row() -> None:
    x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [9.0]])
    found = kmeans(x, 3, torch.tensor([[0.1], [100.0], [200.0]]))
    assert sorted(found.centroids.flatten().tolist()) == pytest.approx([0.1, 5.0, 9.0])


def test_as_many_clusters_as_rows_leave_them_as_they_are() -> None:
    x = torch.randn(40, 3)
    found = kmeans(x, 40)
    assert torch.equal(found.centroids[found.labels], x)
    assert kmeans(x, 1).centroids.allclose(x.mean(0, keepdim=True))


def test_a_start_on_a_sample_ends_as_well_as_one_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(9000, 3)
    whole = kmeans(x, 20, n_init=3)
    monkeypatch.setattr(clustering, "SAMPLE", 1500)
    sampled = kmeans(x, 20, n_init=3)
    assert sampled.inertia == pytest.approx(whole.inertia, rel=0.02)
    assert sampled.inertia != whole.inertia, "the sample was not used"


def test_inertia_is_that_of_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    x = torch.randn(5000, 3)
    theirs = KMeans(30, n_init=3, random_state=0).fit(np.asarray(x)).inertia_
    assert kmeans(x, 30, n_init=3).inertia <= 1.02 * theirs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_keep_theirs(dtype: torch.dtype) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = kmeans(torch.randn(50, 3).to(dtype), 4)
    assert found.centroids.dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "of 5 rows into 0 clusters: the number of clusters has to be 1 to 5"),
        ({"k": 6}, "of 5 rows into 6 clusters"),
        ({"k": 2, "n_init": 0}, "n_init and iters have to be at least 1"),
        ({"k": 2, "iters": 0}, "n_init and iters have to be at least 1"),
        ({"k": 2, "tol": -1.0}, "tol at least 0"),
        ({"k": 2, "init": "random"}, "not 'random'"),
        ({"k": 2, "init": torch.zeros(3, 2)}, r"init has shape \(3, 2\), wanted \(2, 2\)"),
        ({"k": 2, "x": torch.full((5, 2), torch.nan)}, "rows that are not finite"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans(**{"x": torch.zeros(5, 2), **arguments})


@pytest.mark.usefixtures("unchecked")
def test_rows_of_another_length_are_not_assigned() -> None:
    with pytest.raises(ValueError, match=r"rows of \(2,\) against centroids of shape \(4, 3\)"):
        assign(torch.zeros(5, 2), torch.zeros(4, 3))
