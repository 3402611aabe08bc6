"""Points for Lightning: Earth events, known densities, and what hyperbolic autoencoders are tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from saccade.data.images import load_mnist
from saccade.data.root import default_root
from saccade.flows.earth import load_earth_events, split_80_10_10
from saccade.flows.manifolds import Hyperboloid, Sphere
from saccade.flows.synthetic import synthetic_density
from saccade.training.data import DataModule
from saccade.worlds.trees import branching_diffusion


class _Split(DataModule):
    """Rows of a matrix, 80/10/10 at random, as batches (n, A)."""

    collate = staticmethod(lambda samples: torch.stack([sample[0] for sample in samples]))

    rows: Callable[[], Tensor]

    def _part(self, number: int) -> Dataset[Any]:
        rows = self.rows()
        return TensorDataset(rows[split_80_10_10(len(rows), self.seed)[number]])

    def train_set(self) -> Dataset[Any]:
        """80 %."""
        return self._part(0)

    def val_set(self) -> Dataset[Any]:
        """10 %."""
        return self._part(1)

    def test_set(self) -> Dataset[Any]:
        """10 %."""
        return self._part(2)


class EarthEvents(_Split):
    """Volcanic eruptions, earthquakes, floods or fires as points of the sphere, split 80/10/10 at random.

    Args:
        name: `volcano`, `earthquake`, `flood` or `fire`.
        root: The data root, with the folder `earth`, or that folder; `SACCADE_DATA` where not given.
        batch_size: Points a step.
        seed: Of split and order.
    """

    def __init__(
        self,
        name: Literal["volcano", "earthquake", "flood", "fire"] = "volcano",
        root: str | None = None,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed=seed)
        self.event, self.root = name, root

    def rows(self) -> Tensor:
        """The events."""
        root = Path(self.root or default_root())
        return load_earth_events(root / "earth" if (root / "earth").is_dir() else root, self.event).float()


class SyntheticDensity(_Split):
    """Samples of a known density.

    Args:
        space: `sphere` or `hyperboloid`.
        name: See [`synthetic_density`][saccade.flows.synthetic.synthetic_density].
        count: Of samples.
        batch_size: Points a step.
        seed: Of samples, split and order.
    """

    def __init__(
        self,
        space: Literal["sphere", "hyperboloid"] = "sphere",
        name: str = "4wrapped",
        count: int = 20_000,
        batch_size: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed=seed)
        self.space, self.density, self.count = space, name, count

    def rows(self) -> Tensor:
        """The samples."""
        manifold: Any = {"sphere": Sphere(2), "hyperboloid": Hyperboloid(2)}[self.space]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return synthetic_density(manifold, self.density).sample((self.count,))


class BranchingDiffusion(_Split):
    """Nodes of a tree of noisy copies.

    Args:
        depth: Of the tree.
        batch_size: Samples a step.
        seed: Of the tree, the split and the order.
    """

    def __init__(self, depth: int = 6, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__(batch_size, seed=seed)
        self.depth = depth

    def rows(self) -> Tensor:
        """The copies."""
        return branching_diffusion(self.seed, self.depth).values


class Digits(_Split):
    """MNIST's images as vectors in [0, 1].

    Args:
        root: The data root, with the folder `mnist`; `SACCADE_DATA` where not given.
        part: Whose images are read: `train`'s 60,000 or `test`'s 10,000.
        batch_size: Images a step.
        seed: Of split and order.
    """

    def __init__(
        self,
        root: str | None = None,
        part: Literal["train", "test"] = "train",
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed=seed)
        self.root, self.part = root, part

    def rows(self) -> Tensor:
        """The images."""
        images = load_mnist(Path(self.root or default_root()), self.part).images
        return images.flatten(1).float() / 255
