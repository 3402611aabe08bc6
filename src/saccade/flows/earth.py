"""Places on the Earth as points of the sphere, and quadrature over it."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

EVENTS = {"volcano": "volerup.csv", "earthquake": "quakes_all.csv", "flood": "flood.csv", "fire": "fire.csv"}
"""Files of the Earth events that later work measures on."""


def latlon_to_sphere(degrees: Float[Tensor, "*n 2"], wrap: bool = False) -> Float[Tensor, "*n 3"]:
    """Latitude and longitude to unit vectors.

    With θ = latitude + 90° and φ = longitude + 180°: (sin θ cos φ, sin θ sin φ, cos θ).

    Args:
        degrees: Latitude in [-90, 90] and longitude in [-180, 180].
        wrap: Whether longitudes up to 360 are accepted, and taken as those from -180 on.

    Returns:
        Points.

    Raises:
        ValueError: Outside of these ranges.

    Example:
        >>> latlon_to_sphere(torch.tensor([[-90.0, 0.0], [0.0, -180.0]])).round(decimals=3).abs()
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    latitude, longitude = degrees.unbind(-1)
    if bool((latitude.abs() > 90).any()):
        worst = float(latitude.flatten()[latitude.abs().argmax()])
        raise ValueError(f"a latitude is {worst:g}; -90 to 90 is accepted")
    if bool((longitude.abs() > 180).any()) and not (wrap and bool(((longitude >= -180) & (longitude <= 360)).all())):
        worst = float(longitude.flatten()[longitude.abs().argmax()])
        raise ValueError(f"a longitude is {worst:g}; -180 to 180 is accepted, and with wrap up to 360")
    theta, phi = torch.deg2rad(latitude + 90), torch.deg2rad(longitude + 180)
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1)


def sphere_to_latlon(x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 2"]:
    """The inverse of [`latlon_to_sphere`][saccade.flows.earth.latlon_to_sphere]; longitudes from -180 on.

    Args:
        x: Points.

    Returns:
        Degrees.
    """
    latitude = torch.rad2deg(torch.atan2(torch.linalg.vector_norm(x[..., :2], dim=-1), x[..., 2])) - 90
    longitude = torch.rad2deg(torch.atan2(x[..., 1], x[..., 0])) % 360 - 180
    return torch.stack([latitude, longitude], dim=-1)


@dataclass(frozen=True)
class Events:
    """Places that were read.

    Args:
        degrees: Latitude and longitude.
        skipped: Lines that hold none, with the reason.
    """

    degrees: Float[Tensor, "n 2"]
    skipped: list[str]


def read_events(path: str | Path, wrap: bool = False) -> Events:
    """Read latitudes and longitudes from a CSV file.

    Lines that begin with # are comments. Where a first line names columns, those called lat..., lon... or lng... are
    taken, else the first two.

    Args:
        path: The file.
        wrap: Whether longitudes up to 360 are accepted.

    Returns:
        Places in float64, and what was skipped: lines without two numbers, or outside of the ranges.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No line holds a place; the first reason is given.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    places, skipped, columns = [], [], None
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or row[0].lstrip().startswith("#"):
                continue
            if columns is None:
                columns = _columns(row)
                if columns is None:
                    columns = (0, 1)
                else:
                    continue
            try:
                latitude, longitude = (float(row[column]) for column in columns)
            except (ValueError, IndexError):
                skipped.append(f"line {number}: no two numbers in {','.join(row)!r}")
                continue
            if not abs(latitude) <= 90 or not -180 <= longitude <= (360 if wrap else 180):
                hint = "; longitudes up to 360 are accepted with wrap" if 180 < longitude <= 360 else ""
                skipped.append(f"line {number}: {latitude:g}, {longitude:g} is no latitude and longitude{hint}")
                continue
            places.append((latitude, longitude))
    if not places:
        raise ValueError(f"{path} holds no places: {skipped[0] if skipped else 'it is empty'}")
    degrees = torch.tensor(places, dtype=torch.float64)
    degrees[:, 1] = torch.where(degrees[:, 1] > 180, degrees[:, 1] - 360, degrees[:, 1])
    return Events(degrees, skipped)


def load_earth_events(root: str | Path, name: str) -> Float[Tensor, "n 3"]:
    """Events of the Earth as points of the sphere.

    Args:
        root: Folder with the four files.
        name: `volcano`, `earthquake`, `flood` or `fire`.

    Returns:
        Points in float64.

    Raises:
        ValueError: Another name.
        FileNotFoundError: The file is not there.
    """
    if name not in EVENTS:
        raise ValueError(f"the events are {', '.join(EVENTS)}, not {name!r}")
    events = read_events(Path(root) / EVENTS[name])
    if events.skipped:
        warnings.warn(f"{name}: {len(events.skipped)} lines skipped, first {events.skipped[0]}", stacklevel=2)
    return latlon_to_sphere(events.degrees)


def split_80_10_10(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random row numbers for training, validation and test.

    Args:
        count: Of all.
        seed: Of the split.

    Returns:
        Three vectors.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first, second = round(0.8 * count), round(0.9 * count)
    return order[:first], order[first:second], order[second:]


@torch.no_grad()
def integrate_sphere(
    log_prob: Callable[[Tensor], Tensor], cells: int = 20_000, rounds: int = 3, share: float = 1e-5
) -> float:
    """The integral of a density over the sphere, by the midpoint rule on cells that are divided where it is large.

    Args:
        log_prob: From (n, 3) float64 points to log-densities.
        cells: Of equal area, at the beginning.
        rounds: How often cells may be divided into 16.
        share: Of the whole; cells that hold more are divided, if it is four times what the median cell holds. A peak
            much narrower than a first cell may be missed.

    Returns:
        The integral, 1 for a density.

    Example:
        >>> round(integrate_sphere(lambda x: torch.full_like(x[:, 0], -math.log(4 * math.pi))), 6)
        1.0
    """
    wide = round(math.sqrt(2 * cells))
    high = max(1, cells // wide)
    longitude = (torch.arange(wide, dtype=torch.float64) + 0.5) / wide * 2 * math.pi
    height = (torch.arange(high, dtype=torch.float64) + 0.5) / high * 2 - 1
    centre, size = torch.cartesian_prod(longitude, height), torch.tensor([2 * math.pi / wide, 2 / high]).double()
    offsets = (torch.arange(4, dtype=torch.float64) - 1.5) / 4
    total = torch.zeros((), dtype=torch.float64)
    for number in range(rounds):
        mass = _density(log_prob, centre) * size.prod()
        heavy = (mass > share * (total + mass.sum())) & (mass > 4 * mass.median())
        if number == 0:  # what is beside a heavy cell may hold a flank that its centre does not see
            grid = torch.nn.functional.pad(heavy.view(1, 1, wide, high).float(), (0, 0, 1, 1), mode="circular")
            heavy = torch.nn.functional.max_pool2d(grid, 3, 1, padding=(0, 1)).flatten() > 0
        total = total + mass[~heavy].sum()
        shifts = torch.cartesian_prod(offsets, offsets) * size
        centre, size = (centre[heavy].unsqueeze(1) + shifts).flatten(0, 1), size / 4
    return float(total + (_density(log_prob, centre) * size.prod()).sum())


def _density(log_prob: Callable[[Tensor], Tensor], centre: Tensor) -> Tensor:
    longitude, height = centre.unbind(1)
    flat = (1 - height.square()).clamp(min=0).sqrt()
    points = torch.stack([flat * longitude.cos(), flat * longitude.sin(), height], dim=1)
    return torch.cat(
        [points.new_zeros(0), *(log_prob(part).double().exp() for part in points.split(8192) if len(part))]
    )


def _columns(row: list[str]) -> tuple[int, int] | None:
    """Where latitude and longitude are, if this line names columns."""
    try:
        float(row[0])
    except ValueError:
        names = [name.strip().lower() for name in row]
        latitude = next((place for place, name in enumerate(names) if name.startswith("lat")), 0)
        longitude = next((place for place, name in enumerate(names) if name.startswith(("lon", "lng"))), 1)
        return latitude, longitude
    return None
