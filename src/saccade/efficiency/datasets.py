"""Labelled images for compression: small sets in memory, photographs in class folders; training, validation, test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from saccade.data.images import LabelledImages, load_digits, load_fashion_mnist, load_mnist, load_usps
from saccade.data.pickles import safe_unpickle
from saccade.data.records import ImageRecords, class_folders, without_unreadable
from saccade.data.root import default_root, require
from saccade.training.data import DataModule

Layout = Literal["digits", "mnist", "fashion-mnist", "usps", "cifar10", "folder"]
Augmentation = Literal["none", "shift-flip", "crop-flip"]

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class MemoryImages(Dataset[tuple[Tensor, int]]):
    """Images held in memory as bytes, transformed when asked for.

    Args:
        images: (n, c, h, w).
        labels: (n,).
        transform: From (c, h, w) bytes to what a network takes.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        transform: Callable[[Tensor], Tensor],
    ) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def load_cifar10(root: Path, train: bool) -> tuple[UInt8[Tensor, "n 3 32 32"], Int64[Tensor, " n"]]:
    """CIFAR-10 from `cifar-10-batches-bin` or torchvision's `cifar-10-batches-py` below the root.

    The Python files are pickles; they are read by an unpickler that admits arrays alone.

    Args:
        root: The data root.
        train: 50,000 images, or the 10,000 of the test set.

    Returns:
        Images and labels.

    Raises:
        FileNotFoundError: A file is missing; the message names it.
        ValueError: A file is damaged, or holds something else.
    """
    folder = next((root / place for place in ("cifar10", ".") if any((root / place).glob("cifar-10-batches-*"))), root)
    binary = (folder / "cifar-10-batches-bin").is_dir()
    names = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    images, labels = [], []
    for name in names:
        path = folder / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py") / (name + ".bin" * binary)
        require(path, "CIFAR-10", "torchvision (download=True) or the set's page in Toronto")
        if binary:
            content = np.frombuffer(path.read_bytes(), np.uint8)
            if not len(content) or len(content) % 3073:
                raise ValueError(f"{path} has {len(content)} bytes, wanted a multiple of 3,073")
            rows = content.reshape(-1, 3073)
            pixels, classes = rows[:, 1:], rows[:, 0]
        else:
            held = safe_unpickle(path)
            if not isinstance(held, dict) or not {"data", "labels"} <= set(held):
                raise ValueError(f"{path} lacks data or labels")
            pixels, classes = np.asarray(held["data"]), np.asarray(held["labels"])
        if pixels.ndim != 2 or pixels.shape[1] != 3072 or len(pixels) != len(classes) or classes.max(initial=0) > 9:
            raise ValueError(f"{path} holds no rows of 3 x 32 x 32 bytes with labels from 0 to 9")
        images.append(pixels.reshape(-1, 3, 32, 32))
        labels.append(classes)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels).astype(np.int64))


class ImageClasses(DataModule):
    """Images to classify, with a validation part that no training step sees.

    `digits`, `mnist`, `fashion-mnist`, `usps` and `cifar10` lie in memory; their last `held_out` training images, in an
    order drawn by `seed`, are the validation part. `folder` is a person's own data, and the layout of ImageNet:
    `train/<class>/*`, `val/<class>/*` and, where there is one, `test/<class>/*`; images that cannot be read are skipped
    and counted.

    Args:
        layout: Which.
        root: Its root; the data root where `None`.
        size: Side of the images; 0: as they are (not for `folder`).
        grey: One channel for `folder`, instead of three.
        mean: Of the normalisation of values in 0..1, one number a channel or one for all.
        std: Of the same.
        augment: Training images: `shift-flip`, a shift by up to an eighth of the side with zeros beyond the border, and
            mirrored half of the time (CIFAR's usual one); `crop-flip`, a crop of random size and shape, mirrored half
            of the time (ImageNet's); `none`.
        held_out: Training images kept for validation.
        strict: Stop at an image that cannot be read.
        batch_size: Images a step and a process.
        num_workers: Processes that load.
        seed: Of split, order and augmentation.

    Raises:
        ValueError: An unknown layout, a negative size or share, or no size for `folder`.
    """

    def __init__(
        self,
        layout: Layout = "digits",
        root: str | None = None,
        size: int = 0,
        grey: bool = False,
        mean: tuple[float, ...] | list[float] = (0.0,),
        std: tuple[float, ...] | list[float] = (1.0,),
        augment: Augmentation = "none",
        held_out: int = 0,
        strict: bool = False,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if layout not in ("digits", "mnist", "fashion-mnist", "usps", "cifar10", "folder"):
            raise ValueError(f"no layout {layout!r}: digits, mnist, fashion-mnist, usps, cifar10 or folder")
        if size < 0 or held_out < 0 or (layout == "folder" and size == 0):
            raise ValueError(f"size {size} and held_out {held_out} of layout {layout}: a folder needs a size")
        if augment not in ("none", "shift-flip", "crop-flip"):
            raise ValueError(f"augment is 'none', 'shift-flip' or 'crop-flip', not {augment!r}")
        if any(value <= 0 for value in std):
            raise ValueError(f"std has to be positive, not {list(std)}")
        self.layout, self.root = layout, Path(root) if root else default_root()
        self.size, self.grey, self.held_out, self.strict = size, grey, held_out, strict
        self.collate = without_unreadable
        channels = 3 if layout == "cifar10" or (layout == "folder" and not grey) else 1
        norm = [list(values) * channels if len(values) == 1 else list(values) for values in (mean, std)]
        if any(len(values) != channels for values in norm):
            raise ValueError(f"mean and std have {len(mean)} and {len(std)} numbers, images {channels} channel(s)")
        end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*norm)]
        begin: list[Any] = [v2.PILToTensor(), *([v2.Grayscale()] if grey else [])] if layout == "folder" else []
        resize: list[Any] = [v2.Resize((size, size), antialias=True)] if size else []
        if layout == "folder":
            resize = [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
        self.test_transform = v2.Compose([*begin, *resize, *end])
        side = size or {"digits": 8, "usps": 16, "cifar10": 32}.get(layout, 28)
        changes: dict[str, list[Any]] = {
            "none": resize,
            "shift-flip": [*resize, v2.RandomCrop(side, padding=side // 8), v2.RandomHorizontalFlip()],
            "crop-flip": [v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip()],
        }
        self.train_transform = v2.Compose([*begin, *changes[augment], *end])
        self.channels, self.side = channels, side
        self._memory: dict[bool, tuple[Tensor, Tensor]] = {}

    def train_set(self) -> Dataset[Any]:
        """What is trained on."""
        if self.layout == "folder":
            return ImageRecords(self._records("train"), self.train_transform, train=True, strict=self.strict)
        images = MemoryImages(*self._images(True), self.train_transform)
        return Subset(images, self._order(len(images))[: len(images) - self.held_out])

    def val_set(self) -> Dataset[Any]:
        """What was held out; the test part where nothing was."""
        if self.layout == "folder":
            return ImageRecords(self._records("val"), self.test_transform, strict=self.strict)
        if not self.held_out:
            return self.test_set()
        images = MemoryImages(*self._images(True), self.test_transform)
        return Subset(images, self._order(len(images))[len(images) - self.held_out :])

    def test_set(self) -> Dataset[Any]:
        """The test part; of a folder without one, the validation part."""
        if self.layout == "folder":
            if not (self.root / "test").is_dir():
                return self.val_set()
            return ImageRecords(self._records("test"), self.test_transform, strict=self.strict)
        return MemoryImages(*self._images(False), self.test_transform)

    def calibration_set(self) -> Dataset[Any]:
        """Training images as in evaluation, without augmentation: to re-estimate batch norms with."""
        if self.layout == "folder":
            return ImageRecords(self._records("train"), self.test_transform, train=True, strict=self.strict)
        images = MemoryImages(*self._images(True), self.test_transform)
        return Subset(images, self._order(len(images))[: len(images) - self.held_out])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        if self.layout == "folder":
            return tuple(path.name for path in self._folders("train" if (self.root / "train").is_dir() else "val"))
        return CIFAR_CLASSES if self.layout == "cifar10" else tuple("0123456789")

    def _folders(self, part: str) -> list[Path]:
        folder = require(self.root / part, "the image folder", "you: train/<class>/* and val/<class>/*")
        return sorted(path for path in folder.iterdir() if path.is_dir())

    def _records(self, part: str) -> list[Any]:
        folders = self._folders(part)
        if tuple(path.name for path in folders) != self.classes:
            raise ValueError(f"{self.root / part} has other class folders than {self.root}/train")
        return class_folders(folders)

    def _order(self, count: int) -> list[int]:
        if self.held_out >= count:
            raise ValueError(f"held_out is {self.held_out}; there are {count} training images")
        return torch.randperm(count, generator=torch.Generator().manual_seed(self.seed)).tolist()

    def _images(self, train: bool) -> tuple[Tensor, Tensor]:
        if train not in self._memory:
            self._memory[train] = self._read(train)
        return self._memory[train]

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        if self.layout == "cifar10":
            return load_cifar10(self.root, train)
        if self.layout == "digits":  # no split of its own: the first 1,200 train, as in the order of the set
            digits = load_digits()
            part = slice(0, 1200) if train else slice(1200, None)
            return digits.images[part, None], digits.labels[part]
        load: dict[str, Callable[..., LabelledImages]] = {
            "mnist": load_mnist,
            "fashion-mnist": load_fashion_mnist,
            "usps": load_usps,
        }
        found = load[self.layout](self.root, "train" if train else "test")
        return found.images[:, None], found.labels
