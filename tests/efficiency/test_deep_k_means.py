"""The regulariser against the paper's equations in float64, with the N x K matrix that the part never builds."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saccade.efficiency import KMeansRegularizer, cluster_weights, rows_of


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, (5, 2), groups=2)).to(dtype)


def equation(w: Tensor, f: Tensor) -> Tensor:
    """Tr(W^T W) - Tr(F^T W^T W F), samples as columns."""
    return torch.trace(w.T @ w) - torch.trace(f.T @ w.T @ w @ f)


@pytest.mark.parametrize("unit", ["row", "filter"])
def test_hard_is_the_papers_equation_with_the_normalised_indicator(unit: str) -> None:
    model = net()
    part = KMeansRegularizer(model, 4, 0.7, unit=unit)
    loss = part.loss()
    loss.backward()
    total = torch.zeros((), dtype=torch.float64)
    for name in ("0", "2"):
        conv = model.get_submodule(name)
        w = rows_of(conv.weight.detach(), unit).T
        labels = part.labels[name]
        indicator = torch.nn.functional.one_hot(labels, 4).double()
        f = indicator / indicator.sum(0).sqrt()
        torch.testing.assert_close(f.T @ f, torch.eye(4, dtype=torch.float64))
        total += 0.35 * equation(w, f)
        torch.testing.assert_close(rows_of(conv.weight.grad, unit).T, 0.7 * (w - w @ f @ f.T))
    torch.testing.assert_close(loss.detach(), total)


@pytest.mark.parametrize(("shape", "k"), [((10, 4, 3, 3), 4), ((40, 2, 3, 3), 7)])
def test_spectral_is_the_papers_equation_with_singular_vectors(shape: tuple[int, ...], k: int) -> None:
    conv = nn.Conv2d(shape[1], shape[0], shape[2:]).double()
    part = KMeansRegularizer(nn.Sequential(conv), k, 0.3, "spectral", "filter")
    loss = part.loss()
    loss.backward()
    w = conv.weight.detach().flatten(1).T
    f = torch.linalg.svd(w).Vh[:k].T
    torch.testing.assert_close(loss.detach(), 0.15 * equation(w, f))
    torch.testing.assert_close(conv.weight.grad.flatten(1).T, 0.3 * (w - w @ f @ f.T))
    torch.testing.assert_close(part.projector("0"), f @ f.T)
    torch.testing.assert_close(part.tail("0"), torch.linalg.svdvals(w)[k:])
    smaller = min(w.shape)
    assert all(basis.shape == (smaller, k) for basis in part.state_dict().values()), "not on the smaller side"


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(3, 6))
def test_the_relaxation_is_a_lower_bound_of_the_clustering_that_it_relaxes(seed: int, k: int) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(4, 12, 3).double()
    hard = KMeansRegularizer(conv, k, 1.0, unit="filter")
    spectral = KMeansRegularizer(conv, k, 1.0, "spectral", "filter")
    assert spectral.loss().item() <= hard.loss().item() + 1e-9


def test_spectral_on_rows_vanishes_and_says_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.warns(UserWarning, match=r"layer '0': its 72 samples of length 3 have 3 singular directions"):
        part = KMeansRegularizer(model, 3, 1.0, "spectral")
    assert float(part.loss()) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part.update()  # said once
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(KMeansRegularizer(model, 2, 1.0, "spectral").loss()) > 0


def test_descending_the_regulariser_makes_clusters_hard() -> None:
    model = net(torch.float32)
    part = KMeansRegularizer(model, 5, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    before = part.relative_errors()
    for step in range(40):
        optimizer.zero_grad()
        part.loss().backward()
        optimizer.step()
        if step % 10 == 9:
            part.update()
    after = part.relative_errors()
    assert all(after[name] < 1e-3 * before[name] for name in before)
    clustered = cluster_weights(model, 5)
    assert all(layer.relative_error < 1e-4 for layer in clustered.layers.values())


def test_updates_start_from_the_last_centroids_and_never_raise_the_error() -> None:
    model = net(torch.float32)
    part = KMeansRegularizer(model, 6)
    for name, centroids in part.centroids.items():
        assert centroids.shape == (6, model.get_submodule(name).weight.shape[-1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    before = float(part.loss())
    part.update()
    assert float(part.loss()) <= before


def test_a_core_is_one_centroid_in_the_regulariser_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3))
    part = KMeansRegularizer(model, 6, core_ratio={"0": 0.5})
    assert int((part.labels["0"] == 0).sum()) == 72
    ours = cluster_weights(model, 6, {"0": 0.5})
    assert torch.equal(ours.layers["0"].core, (part.labels["0"] == 0).nonzero().squeeze(1))


def test_the_state_is_taken_up_again() -> None:
    model = net(torch.float32)
    part = KMeansRegularizer(model, 4)
    other = KMeansRegularizer(copy.deepcopy(model), 4, seed=9)
    other.load_state_dict(part.state_dict())
    assert torch.equal(other.loss(), part.loss())
    with pytest.raises(ValueError, match="of other layers: nowhere"):
        part.load_state_dict({"nowhere/labels": torch.zeros(3)})


def test_under_autocast_the_term_is_computed_in_the_weights_type() -> None:
    model = net(torch.float32)
    part = KMeansRegularizer(model, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = part.loss()
    assert torch.equal(inside, part.loss())


def test_gradients_by_finite_differences() -> None:
    conv = nn.Conv2d(2, 4, 3).double()
    for part in (KMeansRegularizer(conv, 3), KMeansRegularizer(conv, 2, 0.5, "spectral", "filter")):

        def loss(weight: Tensor, part: KMeansRegularizer = part) -> Tensor:
            conv._parameters["weight"] = weight  # F is fixed: what is checked is the gradient in W
            return part.loss()

        kept = conv.weight
        assert torch.autograd.gradcheck(loss, (kept.detach().clone().requires_grad_(),))
        conv._parameters["weight"] = kept


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lam": -0.1}, ValueError, "lam has to be finite and not negative, not -0.1"),
        ({"lam": float("nan")}, ValueError, "lam has to be finite"),
        ({"clusters": 0}, ValueError, "layer '0' has 72 rows: they form 1 to 72 clusters, not 0"),
        ({"clusters": 73}, ValueError, "layer '0' has 72 rows: they form 1 to 72 clusters, not 73"),
        ({"clusters": {"2": 121}}, ValueError, "layer '2' has 120 rows: they form 1 to 120 clusters, not 121"),
        ({"clusters": 9, "unit": "filter"}, ValueError, "layer '0' has 8 filters"),
        ({"clusters": 2.5}, TypeError, "wanted a whole number"),
        ({"layers": ["1"]}, ValueError, "layer '1' is a ReLU, wanted a convolution"),
        ({"layers": ["3"]}, ValueError, "no layer '3'"),
        ({"clusters": {"0": 4}, "layers": ["0", "2"]}, ValueError, "clusters of layer '2' is not given"),
        ({"relaxation": "soft"}, ValueError, "'hard' or 'spectral', not 'soft'"),
        ({"unit": "column"}, ValueError, "'row' or 'filter', not 'column'"),
        ({"relaxation": "spectral", "core_ratio": 0.5}, ValueError, "no dense core"),
        ({"core_ratio": 1.0}, ValueError, r"core ratio has to be in \[0, 1\), not 1.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        KMeansRegularizer(net(), **{"clusters": 4, **arguments})


def test_weights_that_stop_being_finite_are_named() -> None:
    model = net()
    part = KMeansRegularizer(model, 4)
    with torch.no_grad():
        model[2].weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="layer '2' has weights that are not finite"):
        part.update()
    with pytest.raises(ValueError, match="layer '2' has weights that are not finite"):
        KMeansRegularizer(model, 4)
    with pytest.raises(ValueError, match="72 labels from 0 to 3 are wanted"):
        part.set_labels("0", torch.full((72,), 4))
