"""Shared convolutions of every kind compute what a plain one with the gathered weight does."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small, resnet18

from saccade.efficiency import (
    ClusteredModel,
    SharedConv2d,
    SharedRows,
    cluster_rows,
    cluster_weights,
    rows_of,
    share,
    share_equal_rows,
)
from saccade.surgery import find_layers

KINDS = {
    "grouped": (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), (2, 4, 9, 9)),
    "dilated, reflected": (nn.Conv2d(4, 6, 3, dilation=2, padding=2, padding_mode="reflect", bias=False), (2, 4, 9, 9)),
    "depthwise": (nn.Conv2d(8, 8, (3, 5), groups=8, padding="same"), (2, 8, 9, 9)),
    "1 x 1": (nn.Conv2d(8, 8, 1), (2, 8, 5, 5)),
    "1d": (nn.Conv1d(4, 6, 5), (2, 4, 12)),
    "3d": (nn.Conv3d(2, 5, (3, 1, 3)), (2, 2, 5, 6, 6)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2, output_padding=1, groups=2), (2, 6, 5, 5)),
    "transposed 1d": (nn.ConvTranspose1d(6, 4, 4), (2, 6, 5)),
    "transposed 3d": (nn.ConvTranspose3d(3, 2, 2), (1, 3, 3, 3, 3)),
}


class Standardised(nn.Conv2d):
    """A convolution with a forward of its own, as timm's and others' are."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / (self.weight.std() + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_convolution_is_shared(kind: str) -> None:
    conv, size = KINDS[kind]
    clustered = cluster_weights(conv, 4)
    shared = clustered.shared()[""]
    x = torch.randn(size)
    reference = copy.deepcopy(conv)
    with torch.no_grad():
        rows_of(reference.weight).copy_(shared.centroids[shared.indices])
    torch.testing.assert_close(clustered(x), reference(x))
    assert isinstance(shared, type(conv))
    plain = clustered.materialize()
    assert type(plain) is type(conv)
    assert plain.state_dict().keys() == conv.state_dict().keys()
    assert torch.equal(plain(x), clustered(x))
    assert len(rows_of(plain.weight).unique(dim=0)) <= 4


def test_a_forward_of_its_own_is_kept() -> None:
    conv, x = Standardised(3, 8, 3), torch.randn(2, 3, 6, 6)
    clustered = cluster_weights(nn.Sequential(conv), 5)
    plain = clustered.materialize()
    assert type(plain[0]) is Standardised
    assert torch.equal(plain(x), clustered(x))
    assert (
        cluster_weights(nn.Sequential(conv), 24).layers["0"].mse
        < cluster_weights(nn.Sequential(conv), 5).layers["0"].mse
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: resnet18(weights=None),
        lambda: mobilenet_v3_small(weights=None),
        lambda: timm.create_model("tf_efficientnet_b0"),
    ],
    ids=["resnet18", "mobilenet_v3_small", "tf_efficientnet_b0"],
)
def test_networks_of_others_are_shared_throughout(build: object) -> None:
    model = build().eval()  # type: ignore[operator]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    clustered = cluster_weights(model, 4, n_init=1, iters=5).eval()
    assert len(clustered.shared()) == len(find_layers(model, nn.Conv2d))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "the model was changed"
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(clustered(x), clustered.materialize()(x))
    model.load_state_dict(clustered.materialize().state_dict())


def test_one_cluster_is_the_mean_and_all_clusters_change_nothing() -> None:
    conv = nn.Conv2d(3, 4, 3)
    one, every = cluster_weights(conv, 1), cluster_weights(conv, 36)
    torch.testing.assert_close(one.network.weight[0, 0, 0], rows_of(conv.weight).mean(0))
    assert len(rows_of(one.network.weight).unique(dim=0)) == 1
    assert torch.equal(every.network.weight, conv.weight)
    assert every.layers[""].mse == 0
    assert one.layers[""].relative_error == pytest.approx(1)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_core_is_the_rows_nearest_to_the_mean_and_shares_their_mean(p: float) -> None:
    conv = nn.Conv2d(3, 16, 3).double()
    rows = rows_of(conv.weight.detach())
    clustered = cluster_weights(conv, 5, p)
    core = clustered.layers[""].core
    size = int(144 * p)
    slow = sorted(sorted(range(144), key=lambda i: float((rows[i] - rows.mean(0)).norm()))[:size])
    assert core.tolist() == slow
    shared = clustered.shared()[""]
    torch.testing.assert_close(shared.centroids[0], rows[core].mean(0))
    assert (shared.indices == 0).nonzero().squeeze(1).tolist() == slow
    assert set(shared.indices.tolist()) == set(range(5)), "K - 1 clusters beside the core"
    change = (rows_of(shared.weight.detach()) - rows).square().mean()
    assert clustered.layers[""].mse == pytest.approx(float(change))


def test_a_core_too_small_to_hold_a_row_is_none() -> None:
    assert cluster_rows(torch.randn(20, 3), 4, 0.04).core is None


def test_the_same_seed_gives_the_same_clusters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 8, 3))
    first, again, other = (cluster_weights(model, 9, seed=seed, n_init=1) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.centroids(), again.centroids(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.centroids(), other.centroids(), strict=True))


def test_a_centroids_gradient_is_the_sum_over_its_rows_or_their_mean() -> None:
    conv, x = nn.Conv2d(3, 8, 3), torch.randn(2, 3, 7, 7)
    found = cluster_rows(rows_of(conv.weight), 5)
    whole = copy.deepcopy(conv)
    with torch.no_grad():
        rows_of(whole.weight).copy_(found.centroids[found.labels])
    whole(x).square().sum().backward()
    summed = torch.zeros(5, 3).index_add_(0, found.labels, rows_of(whole.weight.grad))
    counts = torch.bincount(found.labels, minlength=5)[:, None]
    for gradient, expected in (("sum", summed), ("mean", summed / counts)):
        shared = SharedConv2d(conv, found.centroids, found.labels, gradient)
        assert torch.equal(shared(x), whole(x))
        shared(x).square().sum().backward()
        torch.testing.assert_close(shared.centroids.grad, expected)


def test_training_centroids_keeps_rows_shared() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 3))
    clustered = cluster_weights(model, 4)
    x, y = torch.randn(32, 1, 8, 8), torch.randint(3, (32,))
    optimizer = torch.optim.SGD(clustered.centroids(), lr=0.05)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(clustered(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert len(rows_of(clustered.materialize()[0].weight).unique(dim=0)) <= 4


def test_a_module_under_two_names_stays_one() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.ModuleDict({"a": conv, "b": nn.Sequential(conv)})
    network = cluster_weights(model, 3).network
    assert network["a"] is network["b"][0]
    assert isinstance(network["a"], SharedRows)


def test_equal_rows_are_recognised() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    clustered = cluster_weights(model, {"0": 5, "1": 7})
    found = share_equal_rows(clustered.materialize(), {"0": 6, "1": 7})
    assert {name: layer.clusters for name, layer in found.layers.items()} == {"0": 6, "1": 7}
    for name, module in found.shared().items():
        assert torch.equal(module.weight, clustered.shared()[name].weight)
    with pytest.raises(ValueError, match="layer '1' has 7 distinct rows, more than its 3 clusters"):
        share_equal_rows(clustered.materialize(), {"1": 3})


def test_it_compiles_exports_and_copies() -> None:
    model = cluster_weights(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 2, 3)), 4)
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))
    other = copy.deepcopy(model)
    assert isinstance(other, ClusteredModel)
    assert torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert model.double().network[0].weight.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert other(x).dtype == torch.bfloat16


def test_settings_of_a_convolution_survive() -> None:
    conv = nn.Conv2d(4, 4, 3, groups=4)
    conv.weight.requires_grad_(False)
    shared = share(conv, torch.zeros(2, 3), torch.zeros(12, dtype=torch.int64))
    assert not shared.centroids.requires_grad
    assert not shared.to_conv().weight.requires_grad
    assert "groups=4" in repr(shared)
    assert "centroids=2" in repr(shared)
    assert list(shared.state_dict()) == ["centroids", "bias", "indices"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clusters": 0}, "layer '0' has 72 rows: they form 1 to 72 clusters, not 0"),
        ({"clusters": {"0": 100}}, "layer '0' has 72 rows: they form 1 to 72 clusters, not 100"),
        ({"clusters": {"1": 2}}, "layer '1' is a BatchNorm2d, wanted a convolution"),
        ({"clusters": {"conv": 2}}, "no layer 'conv'"),
        ({"clusters": 4, "core_ratio": -0.1}, r"core ratio has to be in \[0, 1\), not -0.1"),
        ({"clusters": 4, "core_ratio": 1.0}, r"core ratio has to be in \[0, 1\), not 1.0"),
        ({"clusters": 1, "core_ratio": 0.5}, "with a core there are at least 2 clusters, not 1"),
        ({"clusters": 40, "core_ratio": 0.9}, "8 rows beside the core cannot form 39 clusters"),
        ({"clusters": 4, "core_ratio": {"1": 0.5}}, "layer '1' is a BatchNorm2d"),
        ({"clusters": 4, "gradient": "max"}, "'sum' or 'mean', not 'max'"),
        ({"clusters": 4, "init": {"0": torch.zeros(3, 3)}}, r"init has shape \(3, 3\), wanted \(4, 3\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_weights(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), **arguments)


def test_networks_that_cannot_be_clustered_are_named() -> None:
    with pytest.raises(ValueError, match="Linear has no convolution to cluster"):
        cluster_weights(nn.Linear(3, 3), 2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.raises(ValueError, match="has no weight of its own: it is shared, parametrised or not built"):
        cluster_weights(cluster_weights(model, 4).network, 4)
    with pytest.raises(ValueError, match="not built"):
        cluster_weights(nn.Sequential(nn.LazyConv2d(4, 3)), 4)
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="layer '0' has weights that are not finite"):
        cluster_weights(model, 4)


@pytest.mark.parametrize(
    ("centroids", "indices", "message"),
    [
        (torch.zeros(2, 4), torch.zeros(72, dtype=torch.int64), "72 rows of 3"),
        (torch.zeros(2, 3), torch.zeros(71, dtype=torch.int64), "72 rows of 3"),
        (torch.zeros(2, 3), torch.full((72,), 2), "indices from 2 to 2 into 2 centroids"),
    ],
)
def test_indices_that_do_not_fit_are_named(centroids: Tensor, indices: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharedConv2d(nn.Conv2d(3, 8, 3), centroids, indices)


def test_a_linear_layer_is_no_convolution() -> None:
    with pytest.raises(ValueError, match="Linear is no convolution"):
        SharedConv2d(nn.Linear(3, 3), torch.zeros(1, 3), torch.zeros(3, dtype=torch.int64))
