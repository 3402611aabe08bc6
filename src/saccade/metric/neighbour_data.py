"""Data modules for continuous labels: a training sample is an anchor with its neighbours, flipped all together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from saccade.data.loading import make_loader
from saccade.data.records import without_unreadable
from saccade.metric.neighbour_batches import LabelNeighbours, Neighbours, binary_neighbours, dense_neighbours
from saccade.training.data import DataModule
from saccade.worlds.stick_figures import FigureBatch, StickFigures

Group = tuple[Float[Tensor, "b c h w"], Float[Tensor, " m"]]
"""Images with the anchor first, and the label distance of each of the others to it."""
Mining = Literal["dense", "binary"]


class NeighbourGroups(Dataset[Group]):
    """One group for each anchor. What is drawn comes from torch's global generator, which the loader seeds by sample.

    Args:
        load: Index to image (c, h, w), or `None` where it cannot be read.
        lists: Who knows the neighbours.
        draw: Gives places in a sorted neighbour list.
        flip: Mirror the whole group, or none of it, with equal chances: a distance of poses stays what it is only where
            both are mirrored.
    """

    def __init__(
        self,
        load: Callable[[int], Tensor | None],
        lists: Neighbours,
        draw: Callable[[], Int[Tensor, " m"]],
        flip: bool = False,
    ) -> None:
        self.load = load
        self.lists = lists
        self.draw = draw
        self.flip = flip

    def __len__(self) -> int:
        return len(self.lists)

    def __getitem__(self, index: int) -> Group:
        """The group of an anchor; neighbours that cannot be read are left out, for such an anchor the next is taken."""
        for step in range(len(self)):
            anchor = (index + step) % len(self)
            first = self.load(anchor)
            if first is None:
                continue
            order, distances = self.lists.of(anchor)
            places = self.draw()
            loaded = [(self.load(int(order[place])), distances[place]) for place in places]
            kept = [(image, distance) for image, distance in loaded if image is not None]
            if len(kept) < 2:
                continue
            images = torch.stack([first, *(image for image, _ in kept)])
            if self.flip and bool(torch.rand(()) < 0.5):
                images = images.flip(-1)
            return images, torch.stack([distance for _, distance in kept]).float()
        raise ValueError(f"none of the {len(self)} anchors can be read with two of its neighbours")


class NeighbourData(DataModule):
    """Base of data modules for continuous labels.

    A step takes `batch_size` anchors, each with its `neighbours`. In evaluation the first `num_queries` samples are
    queries, and the others are what is searched.

    Args:
        neighbours: Samples of a group beside the anchor.
        mining: `dense`: the nearest and others from all the rest; `binary`: some of the 30 nearest, and others.
        num_nearest: Nearest neighbours in every group: all of them (dense), or drawn from the 30 nearest (binary).
        num_positives: With `binary`: so many of the nearest count as the same.
        num_queries: Of evaluation.
        eval_batch_size: Images at a time in evaluation.
        batch_size: Anchors a step and a process.
        num_workers: Processes that load.
        seed: Of order, draws and augmentation.
    """

    def __init__(
        self,
        neighbours: int = 149,
        mining: Mining = "dense",
        num_nearest: int = 5,
        num_positives: int = 30,
        num_queries: int = 100,
        eval_batch_size: int = 128,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if mining not in ("dense", "binary"):
            raise ValueError(f"mining is {mining!r}; dense and binary are accepted")
        if num_queries < 1 or eval_batch_size < 1:
            raise ValueError(f"num_queries and eval_batch_size are {num_queries} and {eval_batch_size}; both are >= 1")
        self.neighbours = neighbours
        self.mining = mining
        self.num_nearest = num_nearest
        self.num_positives = num_positives
        self.num_queries = num_queries
        self.eval_batch_size = eval_batch_size
        self.collate = list

    def draw(self, available: int) -> Callable[[], Int[Tensor, " m"]]:
        """A function that draws places in a neighbour list of that length, after a look whether that is possible."""
        generator = torch.Generator()
        if self.mining == "dense":
            dense_neighbours(available, self.neighbours, self.num_nearest, generator)
            return lambda: dense_neighbours(available, self.neighbours, self.num_nearest)
        binary_neighbours(available, self.neighbours, self.num_positives, self.num_nearest, generator)
        return lambda: binary_neighbours(available, self.neighbours, self.num_positives, self.num_nearest)

    def query_distances(self) -> Float[Tensor, "q n"]:
        """Label distances of the queries of validation to all that is searched."""
        raise ValueError(f"{type(self).__name__} does not say how far its labels are apart")

    def val_dataloader(self) -> DataLoader[Any]:
        """(images, places in the validation set), in order; every sample once, over all processes."""
        return self._eval_loader(self.val_set())

    def test_dataloader(self) -> DataLoader[Any]:
        """As for validation."""
        return self._eval_loader(self.test_set())

    def predict_dataloader(self) -> DataLoader[Any]:
        """As for validation."""
        return self._eval_loader(self.predict_set())

    def _eval_loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        return make_loader(dataset, self.eval_batch_size, num_workers=self.num_workers, collate=without_unreadable)


class Indexed(Dataset[tuple[Tensor, int] | None]):
    """(image, index), or `None` where it cannot be read."""

    def __init__(self, load: Callable[[int], Tensor | None], length: int) -> None:
        self.load = load
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int] | None:
        """One sample."""
        image = self.load(index)
        return None if image is None else (image, index)


class StickFigureImages(NeighbourData):
    """The world of stick figures: nothing to download.

    Args:
        train_size: Figures to train on.
        eval_size: Figures of validation and of test, the queries among them.
        world_seed: Of the figures.
        neighbours: Samples of a group beside the anchor.
        mining: See [`NeighbourData`][saccade.metric.neighbour_data.NeighbourData].
        num_nearest: Nearest neighbours in every group.
        num_positives: With `binary`: so many of the nearest count as the same.
        num_queries: Of evaluation.
        eval_batch_size: Images at a time in evaluation.
        batch_size: Anchors a step and a process.
        num_workers: Processes that load.
        seed: Of order and draws.
    """

    def __init__(
        self,
        train_size: int = 1200,
        eval_size: int = 700,
        world_seed: int = 0,
        neighbours: int = 30,
        mining: Mining = "dense",
        num_nearest: int = 5,
        num_positives: int = 30,
        num_queries: int = 100,
        eval_batch_size: int = 128,
        batch_size: int = 2,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            neighbours, mining, num_nearest, num_positives, num_queries, eval_batch_size, batch_size, num_workers, seed
        )
        if num_queries >= eval_size:
            raise ValueError(f"{num_queries} queries of {eval_size} samples leave nothing to search")
        self.world = StickFigures(seed=world_seed)
        self.sizes = {"train": train_size, "val": eval_size, "test": eval_size}
        self._made: dict[str, FigureBatch] = {}
        # from a person's own picture: bright figures on a dark ground, grey
        side = self.world.size
        end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        self.test_transform = v2.Compose([v2.Grayscale(), v2.Resize((side, side)), *end])

    def figures(self, split: str) -> FigureBatch:
        """All figures of a split, made once."""
        if split not in self._made:
            self._made[split] = self.world.batch(split, range(self.sizes[split]))
        return self._made[split]

    def train_set(self) -> NeighbourGroups:
        """Anchors with their neighbours."""
        figures = self.figures("train")
        lists = LabelNeighbours(figures.pose)
        return NeighbourGroups(lambda index: figures.images[index], lists, self.draw(len(lists) - 1))

    def val_set(self) -> Indexed:
        """Other figures."""
        images = self.figures("val").images
        return Indexed(lambda index: images[index], len(images))

    def query_distances(self) -> Float[Tensor, "q n"]:
        """Distances of poses."""
        return self.figures("val").label_distances()[: self.num_queries, self.num_queries :]
