"""A density of a person's own places: what `saccade fit-density` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saccade.flows.build import sphere_cnf
from saccade.flows.distributions import VonMisesFisher
from saccade.flows.earth import integrate_sphere, latlon_to_sphere, read_events, split_80_10_10
from saccade.flows.manifold_ode import ManifoldCNF
from saccade.flows.manifolds import Sphere
from saccade.flows.pictures import density_grid, density_map


@dataclass(frozen=True)
class FittedDensity:
    """What `saccade fit-density` gives.

    Args:
        flow: The density.
        summary: Figures, as JSON.
        skipped: Lines of the file that hold no place.
    """

    flow: ManifoldCNF
    summary: dict[str, Any]
    skipped: list[str]


def fit_density(
    events: str | Path,
    out: str | Path,
    steps: int = 500,
    batch_size: int = 256,
    lr: float = 1e-2,
    hidden: int = 64,
    depth: int = 1,
    wrap: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> FittedDensity:
    """Fit a density on the globe to places, and draw it.

    Of the places 80 % are learnt from, 10 % are kept for measuring while one tries settings, and 10 % for the figure
    that is reported. In the folder are then `density.png`, `density.npz` (latitudes, longitudes, log-densities in nats
    with respect to the area on the unit sphere), `flow.pt` and `summary.json`. Interrupted, the same call goes on where
    it stood.

    Args:
        events: CSV with latitude and longitude in degrees.
        out: Folder.
        steps: Of training.
        batch_size: Places a step.
        lr: Highest rate.
        hidden: Width of the field.
        depth: Its further hidden layers.
        wrap: Whether longitudes up to 360 are accepted.
        seed: Of split, start and batches.
        device: Where to compute.
        progress: Called with the share done.

    Returns:
        The density and its figures.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No places, fewer than 20, or the folder holds another training.
    """
    out = Path(out)
    read = read_events(events, wrap)
    points = latlon_to_sphere(read.degrees).float()
    if len(points) < 20:
        raise ValueError(f"{events} holds {len(points)} places; at least 20 are needed")
    train, valid, test = (points[rows].to(device) for rows in split_80_10_10(len(points), seed))
    torch.manual_seed(seed)
    flow = sphere_cnf(hidden=hidden, depth=depth).to(device)
    state = out / "training.pt"
    flow.fit(train, steps, batch_size, lr, seed=seed, progress=progress, state=state)
    flow.ode.step_size = 1 / 16
    baseline = VonMisesFisher.fit(train)
    wide = flow.double()
    train, valid, test = train.double(), valid.double(), test.double()
    summary = {
        "places": len(points),
        "skipped_lines": len(read.skipped),
        "steps": steps,
        "nll_train": nll(wide.log_prob, train),
        "nll_valid": nll(wide.log_prob, valid),
        "nll_test": nll(wide.log_prob, test),
        "nll_test_von_mises_fisher": nll(baseline.log_prob, test),
        "nll_uniform": Sphere(2).log_area,
        "integral": integrate_sphere(lambda x: wide.log_prob(x.to(device)).cpu(), cells=5_000, rounds=2, share=1e-4),
    }
    flow = flow.float()

    def log_prob(x: Tensor) -> Tensor:
        return flow.log_prob(x.to(device)).detach().cpu()

    latitude, longitude, values = density_grid(log_prob)
    np.savez_compressed(out / "density.npz", latitude=latitude, longitude=longitude, log_density=values)
    title = f"{len(points):,} places; test NLL {summary['nll_test']:.2f} nats (uniform {summary['nll_uniform']:.2f})"
    Image.fromarray(density_map(log_prob, points, title)).save(out / "density.png", optimize=True)
    torch.save(flow.state_dict(), out / "flow.pt")
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return FittedDensity(flow, summary, read.skipped)


@torch.no_grad()
def nll(log_prob: Callable[[Tensor], Tensor], points: Tensor) -> float:
    """The mean negative log-density.

    Args:
        log_prob: A flow's, or a density's.
        points: Where.

    Returns:
        Nats.
    """
    return float(-torch.cat([log_prob(part) for part in points.split(4096)]).mean())
