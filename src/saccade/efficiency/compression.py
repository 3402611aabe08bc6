"""How many bits a network takes, before and after its rows are shared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from saccade.efficiency.rows import CONVOLUTIONS, rows_of
from saccade.efficiency.shared_weights import ClusteredModel, SharedRows
from saccade.ops.coding import entropy_bits, huffman_lengths, width_of
from saccade.surgery import find_layers

Code = Literal["entropy", "huffman", "fixed"]

LENGTH_BITS = 5
"""A canonical Huffman code is stored as the length of each word: 5 bits, for lengths up to 31."""


@dataclass(frozen=True)
class LayerSize:
    """Bits of one layer.

    Attributes:
        name: The layer.
        rows: Its rows; 0 for a layer that is not shared.
        clusters: K, 0 for a layer that is not shared.
        entropy: Of the distribution of its distinct rows, in bits a row; 0 for a layer that is not shared.
        distinct: Its distinct rows; 0 for a layer that is not shared.
        bits_before: Weights and bias.
        bits_after: Codebook, indices and bias.
    """

    name: str
    rows: int
    clusters: int
    entropy: float
    distinct: int
    bits_before: float
    bits_after: float


@dataclass(frozen=True)
class CompressionReport:
    """Bits of all convolutions and linear layers.

    Attributes:
        layers: In the order of the model.
        bits_before: Their sum.
        bits_after: Their sum.
        bitwidth: Bits of a number that is stored as it is.
        code: How indices were counted.
    """

    layers: list[LayerSize]
    bits_before: float
    bits_after: float
    bitwidth: int
    code: Code

    @property
    def ratio(self) -> float:
        """Before over after."""
        return self.bits_before / self.bits_after if self.bits_after else float("inf")

    def row(self) -> dict[str, Any]:
        """As a JSON row."""
        return {**asdict(self), "ratio": self.ratio}


@torch.no_grad()
def compression_report(
    model: nn.Module, clustered: ClusteredModel, bitwidth: int = 32, code: Code = "entropy"
) -> CompressionReport:
    """Count the bits of convolutions and linear layers before and after.

    Before: weights and biases, `bitwidth` bits each. After, for a shared convolution with N rows of length s':
    K s' numbers of codebook, the indices, and the bias; anything else as before. Batch norms are not counted.

    Args:
        model: Before.
        clustered: After.
        bitwidth: Bits of a number.
        code: Bits of the indices. `entropy`: N times the entropy of the distribution of distinct rows, as the authors
            count, which no code for single indices goes below. `huffman`: a real code, with its table of word lengths.
            `fixed`: ceil(log2 K) each.

    Returns:
        Layer by layer, and in all.

    Raises:
        ValueError: An unknown code, a bit width below 1, or a clustered model that is not one of this model.

    Source:
        arXiv:1806.09228, section 5, and the authors' deployment script.

    Example:
        >>> from saccade.efficiency import cluster_weights
        >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16, 10))
        >>> report = compression_report(net, cluster_weights(net, 8), code="fixed")
        >>> report.layers[0].bits_before, report.layers[0].bits_after  # (432 + 16) * 32; (8 * 3 + 16) * 32 + 144 * 3
        (14336, 1712)
    """
    if bitwidth < 1:
        raise ValueError(f"bitwidth has to be at least 1, not {bitwidth}")
    if code not in ("entropy", "huffman", "fixed"):
        raise ValueError(f"code is 'entropy', 'huffman' or 'fixed', not {code!r}")
    before = find_layers(model, (*CONVOLUTIONS, nn.Linear))
    after = find_layers(clustered.network, (*CONVOLUTIONS, nn.Linear))
    if list(before) != list(after):
        raise ValueError(f"the clustered model has other layers than {type(model).__name__}")
    layers = []
    for name, layer in before.items():
        bias = 0 if layer.bias is None else layer.bias.numel() * bitwidth  # type: ignore[operator]
        whole = layer.weight.numel() * bitwidth + bias  # type: ignore[operator]
        shared = after[name]
        if not isinstance(shared, SharedRows):
            layers.append(LayerSize(name, 0, 0, 0.0, 0, whole, whole))
            continue
        if shared.weight.shape != layer.weight.shape:
            raise ValueError(f"layer {name!r} has another shape in the clustered model")
        rows = rows_of(shared.weight)
        counts = rows.unique(dim=0, return_counts=True)[1]
        k, entropy = clustered.layers[name].clusters, entropy_bits(counts)
        if code == "entropy":
            indices = len(rows) * entropy
        elif code == "huffman":
            indices = int((huffman_lengths(counts) * counts.cpu()).sum()) + LENGTH_BITS * k
        else:
            indices = len(rows) * width_of(k)
        codebook = k * rows.shape[1] * bitwidth
        layers.append(LayerSize(name, len(rows), k, entropy, len(counts), whole, codebook + indices + bias))
    return CompressionReport(
        layers, sum(layer.bits_before for layer in layers), sum(layer.bits_after for layer in layers), bitwidth, code
    )
