"""Convolutions whose rows are shared: K centroids and an index for each row, put into any network by surgery."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.efficiency.rows import CONVOLUTIONS, cluster_rows, layer_seed, layer_settings, rows_of
from saccade.ops.clustering import squared_errors
from saccade.surgery import find_layers, get_module, map_modules

Gradient = Literal["sum", "mean"]


class SharedRows(nn.Module):
    """What all shared convolutions have in common: the weight is gathered from centroids whenever it is read.

    The convolution keeps its class, its settings and its forward, also where that is a user's own; centroids are
    trained through the gather. State-dict keys: `centroids` (k, d), `indices` (n,), and `bias` as before.

    Args:
        conv: The convolution whose settings and bias are taken; its own weight is left out.
        centroids: (k, d) with d the length of a row.
        indices: (n,) centroids of the rows of the weight, in row-major order.
        gradient: What a centroid's gradient is: the `sum` over its rows, which is the true one, or their `mean`, with
            which large clusters do not take larger steps.

    Raises:
        ValueError: Indices or centroids that do not fit the convolution.
    """

    centroids: Tensor
    indices: Tensor
    per_row: Tensor
    weight: Tensor

    def __init__(
        self,
        conv: nn.Module,
        centroids: Float[Tensor, "k d"],
        indices: Int[Tensor, " n"],
        gradient: Gradient = "sum",
    ) -> None:
        weight = conv._parameters.get("weight")
        if weight is None or not isinstance(conv, CONVOLUTIONS):
            raise ValueError(f"{type(conv).__name__} is no convolution with a weight of its own")
        rows = weight.numel() // weight.shape[-1]
        if centroids.ndim != 2 or centroids.shape[1] != weight.shape[-1] or indices.shape != (rows,):
            raise ValueError(
                f"a weight of {tuple(weight.shape)} has {rows} rows of {weight.shape[-1]}: centroids of "
                f"{tuple(centroids.shape)} and indices of {tuple(indices.shape)} do not fit"
            )
        if rows and not 0 <= int(indices.min()) <= int(indices.max()) < len(centroids):
            raise ValueError(
                f"indices from {int(indices.min())} to {int(indices.max())} into {len(centroids)} centroids"
            )
        if gradient not in ("sum", "mean"):
            raise ValueError(f"gradient is 'sum' or 'mean', not {gradient!r}")
        nn.Module.__init__(self)  # a convolution's own would make a weight
        self.__dict__.update({name: copy.copy(value) for name, value in conv.__dict__.items()})
        self.weight_shape, self.gradient = tuple(weight.shape), gradient
        self._parameters.pop("weight")
        bias = self._parameters.pop("bias", None)
        self.centroids = nn.Parameter(centroids.detach().clone().to(weight), requires_grad=weight.requires_grad)
        self.register_parameter("bias", bias)
        self.register_buffer("indices", indices.detach().clone().to(device=weight.device, dtype=torch.int32))
        counts = torch.bincount(indices.to(weight.device), minlength=len(centroids)).clamp(min=1)
        self.register_buffer("per_row", (1 / counts)[:, None].to(weight.dtype), persistent=False)

    def to_conv(self) -> nn.Module:
        """A plain convolution with the same values."""
        plain: Any = object.__new__(type(self).__mro__[2])
        plain.__dict__.update({name: copy.copy(value) for name, value in self.__dict__.items()})
        del plain.__dict__["weight_shape"], plain.__dict__["gradient"]
        for name in ("indices", "per_row"):
            plain._buffers.pop(name)
        plain._non_persistent_buffers_set.discard("per_row")
        centroids = plain._parameters.pop("centroids")
        bias = plain._parameters.pop("bias")
        plain.weight = nn.Parameter(self.weight.detach().clone(), requires_grad=centroids.requires_grad)
        plain.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
        return plain

    def extra_repr(self) -> str:
        """As the convolution's, and the number of centroids."""
        return f"{super().extra_repr()}, centroids={len(self.centroids)}"


def _gather(self: SharedRows) -> Tensor:
    """The weight, in the shape of the convolution's own."""
    centroids = self.centroids
    if self.gradient == "mean":
        held = centroids.detach()
        centroids = held + (centroids - held) * self.per_row  # the value stays to the bit: the difference is 0
    return centroids.index_select(0, self.indices).view(self.weight_shape)


SharedRows.weight = property(_gather)  # type: ignore[assignment]


class SharedConv1d(SharedRows, nn.Conv1d):
    """A `Conv1d` of shared rows."""


class SharedConv2d(SharedRows, nn.Conv2d):
    """A `Conv2d` of shared rows; groups, stride, dilation and padding modes are those of the convolution.

    Example:
        >>> conv = nn.Conv2d(4, 8, 3, groups=2, bias=False)
        >>> shared = SharedConv2d(conv, torch.tensor([[0.0, 0, 0], [1, 0, -1]]), torch.randint(2, (48,)))
        >>> shared(torch.zeros(1, 4, 5, 5)).shape, shared.weight.shape
        (torch.Size([1, 8, 3, 3]), torch.Size([8, 2, 3, 3]))
    """


class SharedConv3d(SharedRows, nn.Conv3d):
    """A `Conv3d` of shared rows."""


class SharedConvTranspose1d(SharedRows, nn.ConvTranspose1d):
    """A `ConvTranspose1d` of shared rows."""


class SharedConvTranspose2d(SharedRows, nn.ConvTranspose2d):
    """A `ConvTranspose2d` of shared rows."""


class SharedConvTranspose3d(SharedRows, nn.ConvTranspose3d):
    """A `ConvTranspose3d` of shared rows."""


_CLASSES: dict[type, type[SharedRows]] = {
    nn.Conv1d: SharedConv1d,
    nn.Conv2d: SharedConv2d,
    nn.Conv3d: SharedConv3d,
    nn.ConvTranspose1d: SharedConvTranspose1d,
    nn.ConvTranspose2d: SharedConvTranspose2d,
    nn.ConvTranspose3d: SharedConvTranspose3d,
}


def share(
    conv: nn.Module, centroids: Float[Tensor, "k d"], indices: Int[Tensor, " n"], gradient: Gradient = "sum"
) -> SharedRows:
    """The shared form of any convolution, of a subclass with a forward of its own as well.

    Args:
        conv: Is not changed; its bias is taken over.
        centroids: (k, d).
        indices: (n,).
        gradient: Of centroids, `sum` or `mean`.

    Returns:
        `SharedConv2d` for a `Conv2d`, and so on.
    """
    kind = type(conv)
    if kind not in _CLASSES:
        _CLASSES[kind] = type(f"Shared{kind.__name__}", (SharedRows, kind), {"__doc__": f"`{kind.__name__}`, shared."})
    return _CLASSES[kind](conv, centroids, indices, gradient)


@dataclass(frozen=True)
class LayerClusters:
    """What clustering did to one layer.

    Attributes:
        clusters: K as asked for, the core included.
        rows: Number of rows.
        core: Ascending indices of the rows in the dense core, or `None`.
        mse: Mean over the weights of the squared change.
        variance: Mean over the weights of the squared distance to the mean row, before.
    """

    clusters: int
    rows: int
    core: Int[Tensor, " m"] | None
    mse: float
    variance: float

    @property
    def relative_error(self) -> float:
        """MSE over variance, 0 to 1: how soft the clusters were."""
        return self.mse / self.variance if self.variance else 0.0


class ClusteredModel(nn.Module):
    """A network whose convolutions are shared, called like the network.

    Args:
        network: With shared convolutions.
        layers: What is known of each of them, by name.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, LayerClusters]) -> None:
        super().__init__()
        self.network = network
        self.layers = dict(layers)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the network's."""
        return self.network(*args, **kwargs)

    def shared(self) -> dict[str, SharedRows]:
        """The shared convolutions by their names in the network."""
        found = find_layers(self.network, SharedRows)
        return {name: module for name, module in found.items() if isinstance(module, SharedRows)}

    def centroids(self) -> list[nn.Parameter]:
        """What centroid fine-tuning optimises: the centroids of all layers."""
        return [module.centroids for module in self.shared().values()]  # type: ignore[misc]

    @torch.no_grad()
    def materialize(self) -> nn.Module:
        """A plain network with the same values: its state dict has the keys of the network that was clustered."""
        network = copy.deepcopy(self.network)
        if isinstance(network, SharedRows):
            return network.to_conv()
        map_modules(network, SharedRows, lambda name, module: module.to_conv())  # type: ignore[operator]
        return network


@torch.no_grad()
def cluster_weights(
    model: nn.Module,
    clusters: int | Mapping[str, int],
    core_ratio: float | Mapping[str, float] = 0.0,
    seed: int = 0,
    *,
    layers: Sequence[str] | None = None,
    init: Mapping[str, Tensor] | None = None,
    n_init: int = 10,
    iters: int = 100,
    gradient: Gradient = "sum",
) -> ClusteredModel:
    """Share the rows of convolutions: K centroids a layer, found by k-means, in a copy of the network.

    Linear layers, biases and batch norms stay as they are. Batch norms hold statistics of the network as it was:
    [`recalibrate_bn`][saccade.surgery.recalibrate_bn] puts them right.

    Args:
        model: Any network; it is not changed.
        clusters: K of every convolution, or of those that are named.
        core_ratio: Share p of rows, 0 to below 1, nearest to the mean of all that get one centroid; for every layer or
            by name.
        seed: Of k-means++; layer number i draws from 1000 + i where it is 0, as in the authors' script.
        layers: Names of the layers where `clusters` is one number; all convolutions where `None`.
        init: Centroids to start from, by layer, such as a regulariser's; then there is one start.
        n_init: Starts, of which the best is kept.
        iters: Lloyd iterations at most.
        gradient: Of centroids when they are trained, `sum` or `mean` over their rows.

    Returns:
        The shared copy.

    Raises:
        ValueError: As `layer_settings` in `saccade.efficiency.rows` says.

    Source:
        arXiv:1806.09228, section 3.2, and the authors' deployment script (dense core).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 3, 3))
        >>> shared = cluster_weights(net, {"0": 8, "2": 4}, core_ratio={"0": 0.25})
        >>> [len(centroids) for centroids in shared.centroids()], len(shared.layers["0"].core)
        ([8, 4], 36)
        >>> shared.materialize().load_state_dict(net.state_dict())
        <All keys matched successfully>
    """
    settings = layer_settings(model, clusters, core_ratio, layers)
    made: dict[str, tuple[Tensor, Tensor]] = {}
    known: dict[str, LayerClusters] = {}
    for index, (name, setting) in enumerate(settings.items()):
        rows = rows_of(setting.conv.weight)  # type: ignore[arg-type]
        start = None if init is None else init.get(name)
        found = cluster_rows(
            rows, setting.clusters, setting.core_ratio, init=None if start is None else start.to(rows), iters=iters,
            n_init=n_init, seed=layer_seed(seed, index),
        )  # fmt: skip
        made[name] = found.centroids, found.labels
        change = float(squared_errors(rows.double(), found.centroids.double(), found.labels).mean()) / rows.shape[1]
        spread = float(rows.double().var(0, correction=0).mean())
        known[name] = LayerClusters(setting.clusters, len(rows), found.core, change, spread)
    return ClusteredModel(_with_shared(model, made, gradient), known)


@torch.no_grad()
def share_equal_rows(model: nn.Module, clusters: Mapping[str, int] | None = None) -> ClusteredModel:
    """Recognise rows that are equal already, such as in a network that was clustered elsewhere.

    Args:
        model: Is not changed.
        clusters: K as it was asked for, by layer, where the accounting shall charge a codebook of that size; the
            number of distinct rows where a layer is not named. With it, only the layers named are shared.

    Returns:
        The shared copy, of the same values.

    Raises:
        ValueError: A layer with more distinct rows than `clusters` says.

    Example:
        >>> shared = share_equal_rows(cluster_weights(nn.Sequential(nn.Conv2d(3, 16, 3)), 5).materialize())
        >>> shared.layers["0"].clusters
        5
    """
    names = list(clusters) if clusters is not None else list(find_layers(model, CONVOLUTIONS))
    made, known = {}, {}
    for name, setting in layer_settings(model, 1, layers=names).items():
        rows = rows_of(setting.conv.weight)  # type: ignore[arg-type]
        distinct, labels = rows.unique(dim=0, return_inverse=True)
        k = len(distinct) if clusters is None else clusters[name]
        if k < len(distinct):
            raise ValueError(f"layer {name!r} has {len(distinct)} distinct rows, more than its {k} clusters")
        made[name] = distinct, labels
        known[name] = LayerClusters(k, len(rows), None, 0.0, float(rows.double().var(0, correction=0).mean()))
    return ClusteredModel(_with_shared(model, made, "sum"), known)


def _with_shared(model: nn.Module, made: Mapping[str, tuple[Tensor, Tensor]], gradient: Gradient) -> nn.Module:
    """A copy of the network with these convolutions in their shared form, under all names they stand under."""
    network = copy.deepcopy(model)
    if "" in made:
        return share(network, *made[""], gradient)
    chosen = {get_module(network, name): made[name] for name in made}
    map_modules(network, lambda module: module in chosen, lambda _, conv: share(conv, *chosen[conv], gradient))
    return network
