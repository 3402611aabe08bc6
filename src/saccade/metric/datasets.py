"""Retrieval data sets in their real layouts; training and test classes are disjoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision.transforms import v2

from saccade.data.images import LabelledImages, load_digits, load_omniglot
from saccade.data.matlab import read_mat
from saccade.data.records import ImageRecords, Record, class_folders, without_unreadable
from saccade.data.root import default_root, require
from saccade.data.transforms import CaffeInput
from saccade.nn.input_spec import IMAGENET_MEAN, IMAGENET_STD
from saccade.training.data import DataModule

INCEPTION_MEAN = (104.0, 117.0, 128.0)
"""Of the Caffe port of Inception-BN: blue, green, red."""


def cub_200_2011(root: Path, train: bool) -> list[Record]:
    """CUB-200-2011: `CUB_200_2011/images/<class>/*.jpg`; the first 100 classes train, the others test."""
    folder = require(root / "CUB_200_2011" / "images", "CUB-200-2011", "the authors' page at Caltech")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    half = len(classes) // 2
    return class_folders(classes[:half] if train else classes[half:])


def cars_196(root: Path, train: bool) -> list[Record]:
    """Cars-196: `cars196/car_ims/*.jpg` with `cars196/cars_annos.mat`; classes 1-98 train, 99-196 test."""
    folder = root / "cars196"
    file = require(folder / "cars_annos.mat", "Cars-196's annotations", "the authors' page at Stanford")
    annotations = read_mat(file, squeeze_me=True)
    if "annotations" not in annotations:
        raise ValueError(f"{file} has no entry 'annotations'")
    records = []
    for row in annotations["annotations"]:
        label = int(row["class"])
        if (label <= 98) == train:
            path = str(row["relative_im_path"])
            records.append(Record(folder / path, label - 1 if train else label - 99))
    return records


def stanford_online_products(root: Path, train: bool) -> list[Record]:
    """Stanford Online Products: `Stanford_Online_Products/Ebay_{train,test}.txt`, one header line."""
    folder = root / "Stanford_Online_Products"
    file = require(folder / f"Ebay_{'train' if train else 'test'}.txt", "Stanford Online Products", "the authors' page")
    rows = _rows(file, skip=1, fields=4)
    first = min(int(row[1]) for row in rows)
    return [Record(folder / row[3], int(row[1]) - first) for row in rows]


def in_shop(root: Path, train: bool) -> list[Record]:
    """In-shop: `Inshop_Clothes/Eval/list_eval_partition.txt`, two header lines; test records are query or gallery."""
    folder = root / "Inshop_Clothes"
    file = require(folder / "Eval" / "list_eval_partition.txt", "In-shop", "the DeepFashion page")
    rows = _rows(file, skip=2, fields=3)
    wanted = ("train",) if train else ("query", "gallery")
    chosen = [row for row in rows if row[2] in wanted]
    strange = {row[2] for row in rows} - {"train", "query", "gallery"}
    if strange:
        raise ValueError(f"{file} names the part {strange.pop()!r}; train, query and gallery are accepted")
    number = {item: index for index, item in enumerate(sorted({row[1] for row in chosen}))}
    return [
        Record(folder / "Img" / row[0].removeprefix("Img/"), number[row[1]], int(row[2] == "gallery")) for row in chosen
    ]


def inaturalist_2018(root: Path, train: bool) -> list[Record]:
    """The retrieval split of iNaturalist 2018, by Smooth-AP (arXiv:2007.12163): 5,690 classes train, 2,452 test.

    `train2018.json`, `val2018.json` and `train_val2018/` of the challenge, and
    `Inat_dataset_splits/Inaturalist_{train,test}_set1.txt` with one image path a line.
    """
    part = "train" if train else "test"
    file = require(
        root / "Inat_dataset_splits" / f"Inaturalist_{part}_set1.txt",
        "iNaturalist's retrieval split",
        "the page of Smooth-AP",
    )
    classes: dict[str, int] = {}
    for name in ("train2018.json", "val2018.json"):
        listing = json.loads(require(root / name, "iNaturalist 2018", "the challenge's page").read_text())
        try:
            category = {row["image_id"]: int(row["category_id"]) for row in listing["annotations"]}
            classes |= {row["file_name"]: category[row["id"]] for row in listing["images"]}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{root / name} lacks {error}; images and annotations of COCO's kind are wanted") from None
    paths = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    for number, path in enumerate(paths, start=1):
        if path not in classes:
            raise ValueError(f"{file}, line {number}: {path} is in neither train2018.json nor val2018.json")
    number_of = {category: at for at, category in enumerate(sorted({classes[path] for path in paths}))}
    return [Record(root / path, number_of[classes[path]]) for path in paths]


def image_folder(root: Path, train: bool) -> list[Record]:
    """A person's own images: `train/<class>/*` and `test/<class>/*`."""
    folder = require(
        root / ("train" if train else "test"), "the image folder", "you: train/<class>/* and test/<class>/*"
    )
    return class_folders(sorted(path for path in folder.iterdir() if path.is_dir()))


LAYOUTS: dict[str, Callable[[Path, bool], list[Record]]] = {
    "cub": cub_200_2011,
    "cars": cars_196,
    "sop": stanford_online_products,
    "inshop": in_shop,
    "inat": inaturalist_2018,
    "folder": image_folder,
}
Layout = Literal["cub", "cars", "sop", "inshop", "inat", "folder"]


class RetrievalImages(DataModule):
    """Photographs for retrieval, with the authors' augmentation.

    Args:
        layout: Which data set's layout.
        root: Its root; the data root where `None`.
        size: Side of the crop.
        caffe: Inception-BN's input, BGR in 0..255 minus (104, 117, 128), instead of ImageNet's RGB normalisation.
        samples_per_class: A batch holds so many of each of its classes; 0: batches are drawn at random.
        strict: Stop at an image that cannot be read, instead of leaving it out.
        batch_size: Samples a step and a process.
        num_workers: Processes that load.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        layout: Layout = "folder",
        root: str | None = None,
        size: int = 224,
        caffe: bool = False,
        samples_per_class: int = 0,
        strict: bool = False,
        batch_size: int = 180,
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.read = LAYOUTS[layout]
        self.root = Path(root) if root else default_root()
        self.with_part = layout == "inshop"
        self.samples_per_class = samples_per_class
        self.strict = strict
        self.collate = without_unreadable
        normalize = [CaffeInput(INCEPTION_MEAN) if caffe else v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), *normalize]
        self.train_transform = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *end])
        self.test_transform = v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), *end])

    def train_set(self) -> ImageRecords:
        """Training classes."""
        return ImageRecords(self.read(self.root, True), self.train_transform, train=True, strict=self.strict)

    def val_set(self) -> ImageRecords:
        """Unseen classes."""
        return ImageRecords(self.read(self.root, False), self.test_transform, self.with_part, strict=self.strict)

    def train_order(self, dataset: Dataset[Any], generator: torch.Generator) -> Tensor:
        """Random, or balanced over classes."""
        if not self.samples_per_class or not isinstance(dataset, ImageRecords):
            return super().train_order(dataset, generator)
        labels = torch.tensor([record.label for record in dataset.records])
        return balanced_order(labels, self.samples_per_class, generator)


class SmallImages(DataModule):
    """Small grey images held in memory, for claims and first steps.

    `digits`: scikit-learn's digits; every digit in each of the four orientations is a class of its own (as in the
    Omniglot literature), which makes 20 classes to train on and 20 unseen ones from five digits each, drawn by `seed`.
    `omniglot`: the small background sets; 136 characters train, 106 of other alphabets are unseen.

    Args:
        name: Which.
        root: The data root, for Omniglot.
        batch_size: Samples a step.
        seed: Of the split, the order and nothing else.
        samples_per_class: A batch holds so many of each of its classes; 0: batches are drawn at random.
    """

    def __init__(
        self,
        name: Literal["digits", "omniglot"] = "digits",
        root: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        samples_per_class: int = 0,
    ) -> None:
        super().__init__(batch_size, 0, seed)
        self.samples_per_class = samples_per_class
        if name == "digits":
            digits, order = load_digits(), torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
            self.train_images, self.val_images = (in_orientations(digits.of(part)) for part in (order[:5], order[5:]))
        else:
            place = Path(root) if root else default_root()
            unseen = ("Japanese_(katakana)", "Sanskrit", "Tagalog")
            self.train_images = load_omniglot(place, "small1")
            self.val_images = load_omniglot(place, "small2", alphabets=unseen)
        # from a person's own picture: bright ink on a dark ground, grey
        side = self.train_images.images.shape[-1]
        end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        self.test_transform = v2.Compose([v2.Grayscale(), v2.Resize((side, side)), *end])

    @property
    def num_classes(self) -> int:
        """Classes to train on."""
        return len(self.train_images.names)

    def train_set(self) -> TensorDataset:
        """Training classes."""
        return _tensors(self.train_images)

    def val_set(self) -> TensorDataset:
        """Unseen classes."""
        return _tensors(self.val_images)

    def train_order(self, dataset: Dataset[Any], generator: torch.Generator) -> Tensor:
        """Random, or balanced over classes."""
        if not self.samples_per_class:
            return super().train_order(dataset, generator)
        return balanced_order(self.train_images.labels, self.samples_per_class, generator)


def in_orientations(images: LabelledImages) -> LabelledImages:
    """Each class split into four, one a quarter turn; every drawing is used once.

    Example:
        >>> len(in_orientations(load_digits()).names)
        40
    """
    turned: list[Tensor] = []
    labels: list[Tensor] = []
    names: list[str] = []
    for label, name in enumerate(images.names):
        own = images.images[images.labels == label]
        for turn in range(4):
            part = own[turn::4].rot90(turn, (1, 2))
            turned.append(part)
            labels.append(torch.full((len(part),), len(names)))
            names.append(f"{name} turned by {90 * turn}°")
    return LabelledImages(torch.cat(turned), torch.cat(labels), tuple(names))


def balanced_order(labels: Tensor, samples_per_class: int, generator: torch.Generator) -> Tensor:
    """An epoch in which runs of `samples_per_class` indices share a class; a rest that makes no run is left out."""
    groups = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().squeeze(1)
        own = own[torch.randperm(len(own), generator=generator)]
        groups += list(own[: len(own) // samples_per_class * samples_per_class].split(samples_per_class))
    if not groups:
        raise ValueError(f"no class has {samples_per_class} samples")
    return torch.cat([groups[index] for index in torch.randperm(len(groups), generator=generator).tolist()])


def _tensors(images: LabelledImages) -> TensorDataset:
    return TensorDataset(images.images.float().unsqueeze(1) / 255, images.labels)


def _rows(file: Path, *, skip: int, fields: int) -> list[list[str]]:
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if number <= skip or not line.strip():
            continue
        row = line.split()
        if len(row) != fields:
            raise ValueError(f"{file}, line {number}: {len(row)} fields, wanted {fields}")
        rows.append(row)
    return rows
