"""Densities on the sphere, drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from saccade.data.figures import to_pixels
from saccade.flows.earth import latlon_to_sphere, sphere_to_latlon

Density = Callable[[Tensor], Tensor]
"""From points to log-densities."""


@torch.no_grad()
def density_grid(log_prob: Density, high: int = 180) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-densities on a grid of the globe.

    Args:
        log_prob: Of points, float32.
        high: Rows; there are twice as many columns.

    Returns:
        Latitudes (high,), longitudes (2 high,), and log-densities (high, 2 high).
    """
    latitude = -90 + (torch.arange(high) + 0.5) * 180 / high
    longitude = -180 + (torch.arange(2 * high) + 0.5) * 180 / high
    points = latlon_to_sphere(torch.cartesian_prod(latitude, longitude))
    values = torch.cat([log_prob(part) for part in points.split(16384)])
    return latitude.numpy(), longitude.numpy(), values.view(high, -1).numpy()


def density_map(
    log_prob: Density, events: Float[Tensor, "n 3"], title: str = "", high: int = 180, floor: float = 1e-3
) -> np.ndarray:
    """A density over longitude and latitude, and the same from both sides of the globe, with events as dots.

    Args:
        log_prob: Of points.
        events: Points that are drawn.
        title: Above.
        high: Rows of the grid.
        floor: Lowest density that has a colour, relative to the highest.

    Returns:
        (height, width, 3) uint8.
    """
    latitude, longitude, values = density_grid(log_prob, high)
    shown = np.clip((values - values.max()) / -math.log(floor), -1, 0) + 1
    figure = Figure(figsize=(11, 8.4), facecolor="white", layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.25, 1))
    flat = figure.add_subplot(grid[0, :])
    flat.imshow(shown, origin="lower", extent=(-180, 180, -90, 90), cmap="magma", vmin=0, vmax=1)
    degrees = sphere_to_latlon(events.double()).numpy()
    flat.scatter(degrees[:, 1], degrees[:, 0], s=1.5, c="#5ad1c9", alpha=0.5, linewidths=0)
    flat.set(xlabel="longitude", ylabel="latitude", title=title, xticks=range(-180, 181, 60), yticks=range(-90, 91, 30))
    for place, side in enumerate((0.0, 180.0)):
        axes = figure.add_subplot(grid[1, place])
        axes.imshow(_hemisphere(shown, latitude, longitude, side), origin="lower", extent=(-1, 1, -1, 1))
        seen = _seen(events, side)
        axes.scatter(seen[:, 0], seen[:, 1], s=1.5, c="#5ad1c9", alpha=0.5, linewidths=0)
        axes.set_title(f"around longitude {side:.0f}", fontsize=10)
        axes.set_axis_off()
    return to_pixels(figure)


def _hemisphere(shown: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, side: float) -> np.ndarray:
    """Orthographic view of a grid, with white outside."""
    from matplotlib import colormaps

    across, up = np.meshgrid(np.linspace(-1, 1, 360), np.linspace(-1, 1, 360))
    inside = across**2 + up**2 <= 1
    near = np.sqrt(np.clip(1 - across**2 - up**2, 0, 1))
    north = np.degrees(np.arcsin(np.clip(up, -1, 1)))
    east = (np.degrees(np.arctan2(across, near)) + side + 180) % 360 - 180
    row = np.clip(((north + 90) / 180 * len(latitude)).astype(int), 0, len(latitude) - 1)
    column = np.clip(((east + 180) / 360 * len(longitude)).astype(int), 0, len(longitude) - 1)
    picture = colormaps["magma"](shown[row, column])
    picture[~inside] = 1
    return picture


def _seen(events: Tensor, side: float) -> np.ndarray:
    degrees = np.radians(sphere_to_latlon(events.double()).numpy())
    east = degrees[:, 1] - math.radians(side)
    seen = np.cos(degrees[:, 0]) * np.cos(east) > 0
    return np.stack([np.cos(degrees[:, 0]) * np.sin(east), np.sin(degrees[:, 0])], axis=1)[seen]
