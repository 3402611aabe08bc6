"""Energy of an inference by an analytical model: operations, and the traffic of weights and activations.

Fewer parameters do not mean less energy: on most chips moving a number costs more than computing with it. The figures
here are estimates from a table of operation energies, to compare networks with; they are no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from saccade.efficiency.rows import CONVOLUTIONS
from saccade.efficiency.shared_weights import ClusteredModel, SharedRows
from saccade.ops.coding import entropy_bits
from saccade.surgery import find_layers, frozen

ONCE = {"dram": 1.0, "buffer": 1.0}


@dataclass(frozen=True)
class EnergyTable:
    """Energies of operations in picojoules; the defaults are those of a 45 nm process at 0.9 V.

    Attributes:
        float_multiply: 32-bit floating point.
        float_add: 32-bit floating point.
        int_multiply: 8-bit integer; other widths in proportion to the product of both widths (32 bit: 3.2).
        int_add: 8-bit integer; other widths in proportion (32 bit: 0.12).
        dram: One access to 32 bits.
        levels: Of the memories of a row-stationary array, relative to a register; DRAM's place sets the scale.
        weights: How often every stored bit of a weight is moved at each level: from DRAM to the buffer, and from there
            to the array.
        inputs: The same of input activations.
        outputs: The same of output activations.
    """

    float_multiply: float = 3.7
    float_add: float = 0.9
    int_multiply: float = 0.2
    int_add: float = 0.03
    dram: float = 640.0
    levels: Mapping[str, float] = field(
        default_factory=lambda: {"register": 1.0, "neighbour": 2.0, "buffer": 6.0, "dram": 200.0}
    )
    weights: Mapping[str, float] = field(default_factory=lambda: dict(ONCE))
    inputs: Mapping[str, float] = field(default_factory=lambda: dict(ONCE))
    outputs: Mapping[str, float] = field(default_factory=lambda: dict(ONCE))

    def mac(self, activation_bits: int, weight_bits: int) -> float:
        """Of one multiply and one add: floating point at 32 bits and more, else integers."""
        if max(activation_bits, weight_bits) >= 32:
            return self.float_multiply + self.float_add
        widest = max(activation_bits, weight_bits)
        return self.int_multiply * activation_bits * weight_bits / 64 + self.int_add * widest / 8

    def bit(self, accesses: Mapping[str, float]) -> float:
        """Of moving one bit so often at each level.

        Raises:
            ValueError: A level that the table does not have.
        """
        unknown = set(accesses) - set(self.levels)
        if unknown:
            raise ValueError(f"no level {sorted(unknown)[0]!r} in the table; there is {', '.join(self.levels)}")
        unit = self.dram / 32 / self.levels["dram"]
        return sum(count * self.levels[level] * unit for level, count in accesses.items())


@dataclass(frozen=True)
class Cost:
    """What a layer computes and holds.

    Attributes:
        macs: Multiply-adds.
        full_adders: The same in 1-bit full adders.
        activation_bits: Of its input.
        weight_bits: Of its weights, or of codebook and indices where rows are shared.
    """

    macs: float
    full_adders: float
    activation_bits: float
    weight_bits: float


def layer_cost(
    products: float,
    outputs: int,
    inputs: int,
    weights: int,
    *,
    activation_bits: int = 32,
    weight_bits: int = 32,
    clusters: int = 0,
    row_length: int = 1,
    entropy: float = 0.0,
) -> Cost:
    """Computational and representational cost of a convolution or linear layer.

    Args:
        products: D, the products of one output: c_in s s' for an ungrouped convolution.
        outputs: c_out H_out W_out.
        inputs: c_in H_in W_in.
        weights: Numbers in the weight tensor.
        activation_bits: B_A.
        weight_bits: B_W.
        clusters: K; 0: weights are not shared.
        row_length: s'.
        entropy: H, bits of a row's index.

    Returns:
        N_out D multiply-adds; N_out [D B_A B_W + (D - 1)(B_A + B_W + ceil(log2 D) - 1)] full adders; c_in H_in W_in B_A
        bits of activations; weights B_W bits, or K s' B_W + N H with N rows.

    Source:
        arXiv:1806.09228, section 4; the formulas are those of the analytical model that it builds on.

    Example:
        >>> layer_cost(27, 16 * 32 * 32, 3 * 32 * 32, 432, activation_bits=8, weight_bits=8).full_adders
        36831232
    """
    carries = activation_bits + weight_bits + math.ceil(math.log2(max(products, 1))) - 1
    adders = outputs * (products * activation_bits * weight_bits + (products - 1) * carries)
    stored = (
        clusters * row_length * weight_bits + weights // row_length * entropy if clusters else weights * weight_bits
    )
    return Cost(outputs * products, adders, inputs * activation_bits, stored)


@dataclass(frozen=True)
class LayerEnergy:
    """One layer's cost and its energy in picojoules.

    Attributes:
        name: The layer.
        cost: What it computes and holds.
        reuse: Share of the row products that are computed: rows that a shared layer convolves with the same input
            channel are computed once.
        macs: Energy of the operations.
        weights: Energy of moving weights.
        inputs: Energy of moving input activations.
        outputs: Energy of moving output activations.
    """

    name: str
    cost: Cost
    reuse: float
    macs: float
    weights: float
    inputs: float
    outputs: float

    @property
    def data(self) -> float:
        """Of all that is moved."""
        return self.weights + self.inputs + self.outputs

    @property
    def total(self) -> float:
        """Operations and data."""
        return self.macs + self.data


@dataclass(frozen=True)
class EnergyReport:
    """Energy of one inference, in picojoules.

    Attributes:
        layers: Convolutions and linear layers, in the order of the model.
        macs: Operations.
        weights: Moving weights.
        inputs: Moving input activations.
        outputs: Moving output activations.
        uncompressed: Total of the same network without shared rows.
    """

    layers: list[LayerEnergy]
    macs: float
    weights: float
    inputs: float
    outputs: float
    uncompressed: float

    @property
    def data(self) -> float:
        """Of all that is moved."""
        return self.weights + self.inputs + self.outputs

    @property
    def total(self) -> float:
        """Operations and data."""
        return self.macs + self.data

    @property
    def ratio(self) -> float:
        """Total over that of the network without shared rows; 1 where nothing is shared."""
        return self.total / self.uncompressed if self.uncompressed else 1.0

    def row(self) -> dict[str, Any]:
        """As a JSON row."""
        return {**asdict(self), "data": self.data, "total": self.total, "ratio": self.ratio}


def energy_report(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    bits: int | tuple[int, int] = 32,
    table: EnergyTable | None = None,
) -> EnergyReport:
    """Estimate the energy of one inference, layer by layer.

    Args:
        model: Any network, or a `ClusteredModel`; run once on zeros, in eval mode.
        input_size: Of one input without the batch, such as (3, 32, 32).
        bits: Of a number; or of activations and of weights.
        table: Of energies.

    Returns:
        Energies of convolutions and linear layers, and the ratio to the network without shared rows.

    Raises:
        ValueError: No input size, or one that the network cannot take; bits below 1.

    Source:
        arXiv:1806.09228, section 4.

    Example:
        >>> from saccade.efficiency import cluster_weights
        >>> net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
        >>> plain, shared = (energy_report(m, (3, 32, 32)) for m in (net, cluster_weights(net, 8)))
        >>> plain.ratio, shared.ratio < 1, plain.layers[0].cost.macs
        (1.0, True, 1769472)
    """
    if input_size is None:
        raise ValueError("the energy depends on the size of the input: give input_size, such as (3, 32, 32)")
    activation_bits, weight_bits = (bits, bits) if isinstance(bits, int) else bits
    if activation_bits < 1 or weight_bits < 1:
        raise ValueError(f"bits have to be at least 1, not {bits}")
    table = EnergyTable() if table is None else table
    network = model.network if isinstance(model, ClusteredModel) else model
    nominal = model.layers if isinstance(model, ClusteredModel) else {}
    shapes = _shapes(network, input_size)
    layers, before = [], 0.0
    for name, layer in find_layers(network, (*CONVOLUTIONS, nn.Linear)).items():
        if name not in shapes:
            continue  # the forward pass does not reach it
        weight: Tensor = layer.weight  # type: ignore[assignment]
        sizes = _sizes(layer, weight, shapes[name])
        width = {"activation_bits": activation_bits, "weight_bits": weight_bits}
        plain = cost = layer_cost(*sizes, **width)
        reuse = 1.0
        if isinstance(layer, SharedRows):
            indices = layer.indices.long()
            k = nominal[name].clusters if name in nominal else len(layer.centroids)
            entropy = entropy_bits(torch.bincount(indices))
            cost = layer_cost(*sizes, **width, clusters=k, row_length=weight.shape[-1], entropy=entropy)
            reuse = _distinct_products(layer, indices, weight) / len(indices)
        moved = sizes[1] * activation_bits * table.bit(table.outputs)
        mac, bit, taken = table.mac(activation_bits, weight_bits), table.bit(table.weights), table.bit(table.inputs)
        inputs = cost.activation_bits * taken
        layers.append(LayerEnergy(name, cost, reuse, cost.macs * mac * reuse, cost.weight_bits * bit, inputs, moved))
        before += plain.macs * mac + plain.weight_bits * bit + inputs + moved
    parts = {what: sum(getattr(layer, what) for layer in layers) for what in ("macs", "weights", "inputs", "outputs")}
    return EnergyReport(layers, **parts, uncompressed=before)


def _shapes(network: nn.Module, input_size: Sequence[int]) -> dict[str, list[tuple[int, int]]]:
    """Numbers of inputs and outputs of each call of each layer, for one input."""
    seen: dict[str, list[tuple[int, int]]] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.setdefault(name, []).append((inputs[0].numel(), output.numel()))

        return hook

    for name, layer in find_layers(network, (*CONVOLUTIONS, nn.Linear)).items():
        handles.append(layer.register_forward_hook(keep(name)))
    first = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    try:
        with frozen(network), torch.no_grad():
            network(torch.zeros(1, *input_size, device=first.device, dtype=first.dtype))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{type(network).__name__} cannot take an input of {tuple(input_size)}: {reason}") from error
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _sizes(layer: nn.Module, weight: Tensor, calls: list[tuple[int, int]]) -> tuple[float, int, int, int]:
    """Products of one output, outputs, inputs, weights; summed over calls."""
    inputs, outputs = (sum(call[which] for call in calls) for which in (0, 1))
    each = weight[0].numel()
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return inputs * each / outputs, outputs, inputs, weight.numel()  # every input meets (c_out / g) s s' weights
    return each, outputs, inputs, weight.numel()


def _distinct_products(layer: SharedRows, indices: Tensor, weight: Tensor) -> int:
    """Pairs of input channel and centroid: a row that meets the same channel twice is convolved with it once."""
    groups = int(layer.groups)  # type: ignore[arg-type]
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        channels = torch.arange(weight.shape[0], device=indices.device)[:, None]
    else:
        group = torch.arange(groups, device=indices.device).repeat_interleave(weight.shape[0] // groups)
        channels = group[:, None] * weight.shape[1] + torch.arange(weight.shape[1], device=indices.device)
    per_filter = indices.view(weight.shape[0], weight.shape[1], -1)
    pairs = per_filter * int(layer.in_channels) + channels.expand(per_filter.shape[:2])[..., None]  # type: ignore[arg-type]
    return len(pairs.unique())
