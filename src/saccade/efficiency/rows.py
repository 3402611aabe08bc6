"""The view of weights that is clustered: rows of filters, or whole filters, of named convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.ops.clustering import kmeans
from saccade.surgery import find_layers, get_module

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Unit = Literal["row", "filter"]


@dataclass(frozen=True)
class LayerSetting:
    """How one layer is clustered: its module, clusters, and the share of rows in its dense core."""

    conv: nn.Module
    clusters: int
    core_ratio: float


@dataclass(frozen=True)
class RowClusters:
    """Rows in clusters.

    Attributes:
        centroids: (k, d).
        labels: (n,).
        core: Ascending indices of the rows in the dense core, whose centroid is the first; `None` without one.
    """

    centroids: Float[Tensor, "k d"]
    labels: Int[Tensor, " n"]
    core: Int[Tensor, " m"] | None


def rows_of(weight: Float[Tensor, ...], unit: Unit = "row") -> Float[Tensor, "n d"]:
    """A weight tensor as samples.

    Args:
        weight: (c_out, c_in / groups, ..., s'), for transposed convolutions (c_in, c_out / groups, ..., s').
        unit: `row`: the 1 x s' pieces of the filters, in row-major order; `filter`: whole filters, flattened.

    Returns:
        One sample a row. It is a view where the weight is contiguous.

    Example:
        >>> rows_of(torch.zeros(8, 3, 5, 5)).shape, rows_of(torch.zeros(8, 3, 5, 5), "filter").shape
        (torch.Size([120, 5]), torch.Size([8, 75]))
    """
    if unit not in ("row", "filter"):
        raise ValueError(f"unit is 'row' or 'filter', not {unit!r}")
    return weight.reshape(-1, weight.shape[-1]) if unit == "row" else weight.flatten(1)


def layer_settings(
    model: nn.Module,
    clusters: int | Mapping[str, int],
    core_ratio: float | Mapping[str, float] = 0.0,
    layers: Sequence[str] | None = None,
    unit: Unit = "row",
) -> dict[str, LayerSetting]:
    """Which layers are clustered, and how; everything that can be wrong with the request is said here.

    Args:
        model: Whose convolutions.
        clusters: Of every layer, or of those that are named.
        core_ratio: Of every layer, or of those that are named.
        layers: Names of the layers; where `None`, all of `clusters`, or all convolutions.
        unit: What a sample is.

    Returns:
        Name to setting, in the order of the model.

    Raises:
        ValueError: No such layer, one that is no convolution or is shared already, more clusters than samples, a core
            ratio outside [0, 1), fewer than two clusters with a core, or weights that are not finite.
    """
    found = find_layers(model, CONVOLUTIONS)
    known = {id(conv): name for name, conv in found.items()}
    asked = list(layers) if layers is not None else list(clusters) if isinstance(clusters, Mapping) else list(found)
    if not asked:
        raise ValueError(f"{type(model).__name__} has no convolution to cluster")
    extra = [*(core_ratio if isinstance(core_ratio, Mapping) else ())]
    for name in [*asked, *extra]:
        layer = get_module(model, name)
        if not isinstance(layer, CONVOLUTIONS):
            raise ValueError(f"layer {name!r} is a {type(layer).__name__}, wanted a convolution")
    settings: dict[str, LayerSetting] = {}
    for name in asked:
        conv = get_module(model, name)
        if isinstance(clusters, Mapping) and name not in clusters:
            raise ValueError(f"the number of clusters of layer {name!r} is not given")
        k = clusters[name] if isinstance(clusters, Mapping) else clusters
        p = core_ratio.get(name, 0.0) if isinstance(core_ratio, Mapping) else core_ratio
        settings[known[id(conv)]] = LayerSetting(conv, k, p)
        _check(name, settings[known[id(conv)]], unit)
    return {name: settings[name] for name in found if name in settings}


def _check(name: str, setting: LayerSetting, unit: Unit) -> None:
    weight = setting.conv._parameters.get("weight")
    if weight is None or isinstance(weight, nn.parameter.UninitializedParameter):
        kind = type(setting.conv).__name__
        raise ValueError(f"layer {name!r} ({kind}) has no weight of its own: it is shared, parametrised or not built")
    rows = len(rows_of(weight, unit))
    k, p = setting.clusters, setting.core_ratio
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"layer {name!r}: the number of clusters is {k!r}, wanted a whole number")
    if not 1 <= k <= rows:
        raise ValueError(f"layer {name!r} has {rows} {unit}s: they form 1 to {rows} clusters, not {k}")
    if not 0 <= p < 1:
        raise ValueError(f"layer {name!r}: the core ratio has to be in [0, 1), not {p}")
    if p and k < 2:
        raise ValueError(f"layer {name!r}: with a core there are at least 2 clusters, not {k}")
    size = int(rows * p)
    if size and k - 1 > rows - size:
        raise ValueError(f"layer {name!r}: {rows - size} {unit}s beside the core cannot form {k - 1} clusters")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(f"layer {name!r} has weights that are not finite")


def cluster_rows(
    rows: Float[Tensor, "n d"],
    k: int,
    core_ratio: float = 0.0,
    *,
    init: Float[Tensor, "k d"] | None = None,
    iters: int = 100,
    n_init: int = 10,
    seed: int = 0,
) -> RowClusters:
    """Cluster rows, a dense core first where one is asked for.

    The int(n p) rows nearest to the mean of all rows are the core; their own mean is centroid 0. The others form k - 1
    clusters. A large cluster costs few bits an index.

    Args:
        rows: Finite.
        k: Clusters, the core included.
        core_ratio: p, 0 to below 1.
        init: Centroids to start from, the core's first.
        iters: Lloyd iterations at most.
        n_init: Starts of k-means++.
        seed: Of the draws.

    Returns:
        Centroids in the type of the rows, labels, core.

    Source:
        The authors' deployment script; with a core, k - 1 further clusters on every device.

    Example:
        >>> found = cluster_rows(torch.tensor([[0.0], [0.1], [-0.1], [3.0], [-3.0]]), 3, core_ratio=0.6)
        >>> found.core, found.centroids.flatten().tolist()[0]
        (tensor([0, 1, 2]), 0.0)
    """
    rows = rows.detach()
    size = int(len(rows) * core_ratio)
    if not size:
        found = kmeans(rows, k, "k-means++" if init is None else init, iters=iters, n_init=n_init, seed=seed)
        return RowClusters(found.centroids, found.labels, None)
    wide = rows.double()
    order = (wide - wide.mean(0)).square().sum(1).argsort(stable=True)
    core, rest = order[:size].sort().values, order[size:].sort().values
    labels = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    start = "k-means++" if init is None else init[1:]
    found = kmeans(rows[rest], k - 1, start, iters=iters, n_init=n_init, seed=seed)
    labels[rest] = found.labels + 1
    middle = wide[core].mean(0, keepdim=True).to(rows.dtype)
    return RowClusters(torch.cat([middle, found.centroids]), labels, core)


def layer_seed(seed: int, index: int) -> int:
    """1000 and the number of the layer, as in the authors' script, for seed 0; far from it for any other."""
    return 1000 + index + 7919 * seed
