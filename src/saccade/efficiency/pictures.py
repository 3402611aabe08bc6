"""What a person wants to see of clustered weights: the rows and their centroids, and the filters themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from saccade.data.figures import to_pixels
from saccade.efficiency.rows import rows_of
from saccade.efficiency.shared_weights import ClusteredModel

INK, DOT = "#333a44", "#2f7de1"


def row_clouds(networks: Mapping[str, tuple[nn.Module, ClusteredModel]], layers: Sequence[str]) -> np.ndarray:
    """Rows of some layers in the plane of their two main directions, with the centroids that stand for them.

    Args:
        networks: Title to a network before clustering, and clustered.
        layers: Names of convolutions.

    Returns:
        A row of panels for each network, uint8 (h, w, 3).
    """
    figure = Figure(figsize=(3.6 * len(layers), 3.4 * len(networks)), facecolor="white")
    panels = figure.subplots(len(networks), len(layers), squeeze=False)
    planes = {}
    for row, (title, (network, clustered)) in zip(panels, networks.items(), strict=True):
        for axes, name in zip(row, layers, strict=True):
            rows = rows_of(network.get_parameter(f"{name}.weight").detach()).float().cpu()
            if name not in planes:  # the same plane and the same scale for all networks
                basis = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :2]
                planes[name] = basis, 1.15 * float((rows @ basis).abs().quantile(0.998))
            basis, reach = planes[name]
            if basis.shape[1] < 2:
                basis = torch.cat([basis, torch.zeros_like(basis)], 1)
            spots = (rows @ basis).numpy()
            shared = clustered.shared()[name]
            centres = (shared.centroids.detach().float().cpu() @ basis).numpy()
            sizes = torch.bincount(shared.indices.cpu().long(), minlength=len(centres)).numpy()
            axes.scatter(*spots.T, s=7, c=DOT, alpha=0.22, linewidths=0, rasterized=True)
            axes.scatter(*centres.T, s=20 + 380 * sizes / max(len(rows), 1), facecolors="none", edgecolors=INK, lw=1.2)
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
            axes.set_aspect("equal")
            axes.set_xticks([])
            axes.set_yticks([])
            error = clustered.layers[name].relative_error
            axes.set_title(f"{title}\n{name}: {len(rows)} rows, error {error:.2g}", fontsize=9, color=INK)
    return to_pixels(figure, dpi=110, tight=True)


def filter_sheet(networks: Mapping[str, nn.Module], layer: str, count: int = 10) -> np.ndarray:
    """The first filters of a layer, the same ones of every network below each other.

    Args:
        networks: Title to network.
        layer: A 2D convolution.
        count: Filters to show; of each the first input channels are laid side by side.

    Returns:
        uint8 (h, w, 3).
    """
    weights = [_weight(network, layer) for network in networks.values()]
    count, channels = min(count, len(weights[0])), min(weights[0].shape[1], 8)
    reach = float(weights[0][:count, :channels].abs().quantile(0.99))
    tall = count * (weights[0].shape[2] + 1) / (channels * (weights[0].shape[3] + 1))
    figure = Figure(figsize=(11, 0.4 + 10.8 / len(networks) * tall), facecolor="white")
    for axes, title, weight in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, weights, strict=True):
        high, wide = weight.shape[2:]
        canvas = np.full((count * (high + 1) - 1, channels * (wide + 1) - 1), np.nan, np.float32)
        for i in range(count):
            for j in range(channels):
                canvas[i * (high + 1) :, j * (wide + 1) :][:high, :wide] = weight[i, j].numpy()
        axes.imshow(canvas, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(title, fontsize=9, color=INK)
    return to_pixels(figure, dpi=110, tight=True)


def _weight(network: nn.Module, layer: str) -> torch.Tensor:
    weight = network.get_submodule(layer).weight  # of a shared convolution it is no parameter
    return weight.detach().float().cpu()  # type: ignore[operator]
