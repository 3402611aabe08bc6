"""The retrieval data sets as torch data sets of (image, label): CUB, Cars196, Stanford Online Products, iNaturalist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from saccade.data.records import Record
from saccade.metric.datasets import cars_196, cub_200_2011, inaturalist_2018, stanford_online_products


class BaseDataset(Dataset[tuple[Any, Any]]):
    """Images and labels of the training classes, the test classes, or both.

    Args:
        root: Where the data set lies, in the layout that its function in `saccade.metric.datasets` names.
        split: "train", "test" or "train+test".
        transform: Of the PIL image.
        target_transform: Of the label.
        download: Not done: data sets are fetched by hand.

    Attributes:
        paths: Of the images.
        labels: Of the images; those of test classes follow those of training classes.

    Raises:
        ValueError: Another split, no such folder, or `download`.
    """

    SPLITS = ("train", "test", "train+test")
    SOURCE = "its authors"
    first_label = 0

    def __init__(
        self,
        root: str | Path,
        split: str = "train+test",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = False,
    ) -> None:
        if download:
            raise ValueError(
                f"download is True; nothing is downloaded here. Get {type(self).__name__} from {self.SOURCE}"
            )
        if split not in self.get_available_splits():
            raise ValueError(f"split is {split!r}; {', '.join(self.get_available_splits())} are accepted")
        if not Path(root).is_dir():
            raise ValueError(f"{root} is no folder; get {type(self).__name__} from {self.SOURCE}")
        self.root = root
        self.split = split
        self.transform = transform
        self.target_transform = target_transform
        self.paths: list[str] = []
        self.labels: list[int] = []
        self.generate_split()

    def records(self, root: Path, train: bool) -> list[Record]:
        """Images of the training classes, or of the test classes, with labels from 0."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it holds")

    def generate_split(self) -> None:
        """Read the lists."""
        first = self.first_label
        for part in ("train",) if self.split == "train" else ("train", "test"):
            records = self.records(Path(self.root), part == "train")
            if part in self.split.split("+"):
                self.paths += [str(record.path) for record in records]
                self.labels += [record.label + first for record in records]
            first += 1 + max((record.label for record in records), default=-1)

    def get_available_splits(self) -> list[str]:
        """Names of splits."""
        return list(self.SPLITS)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, idx: int) -> tuple[Any, Any]:
        """An image in RGB and its label."""
        image: Any = Image.open(self.paths[idx]).convert("RGB")
        label: Any = self.labels[idx]
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )


class CUB(BaseDataset):
    """CUB-200-2011, labels 1 to 200."""

    SOURCE = "the authors' page at Caltech"
    first_label = 1

    def records(self, root: Path, train: bool) -> list[Record]:
        """As in `cub_200_2011`."""
        return cub_200_2011(root, train)


class Cars196(BaseDataset):
    """Cars-196, labels 1 to 196."""

    SOURCE = "the authors' page at Stanford"
    first_label = 1

    def records(self, root: Path, train: bool) -> list[Record]:
        """As in `cars_196`."""
        return cars_196(root, train)


class StanfordOnlineProducts(BaseDataset):
    """Stanford Online Products, labels 1 to 22,634."""

    SOURCE = "the authors' page at Stanford"
    first_label = 1

    def records(self, root: Path, train: bool) -> list[Record]:
        """As in `stanford_online_products`."""
        return stanford_online_products(root, train)


class INaturalist2018(BaseDataset):
    """iNaturalist 2018 with the retrieval split, labels from 0 within train and after them within test."""

    SOURCE = "the challenge's page, and the lists from that of Smooth-AP"

    def records(self, root: Path, train: bool) -> list[Record]:
        """As in `inaturalist_2018`."""
        return inaturalist_2018(root, train)
