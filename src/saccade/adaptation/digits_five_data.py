"""Digits-Five, five sets of digits as M3SDA's authors packed them (arXiv:1812.01754): read, cut to size, joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from scipy.io import loadmat
from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.datamodule import DomainData
from saccade.adaptation.images import ImageSet, Loaded
from saccade.data.loading import mix
from saccade.data.root import default_root, require

Split = Literal["train", "test"]


class ByteImages(ImageSet):
    """Images held in memory as bytes; what is loaded is in [-1, 1].

    Args:
        images: 0 to 255.
        labels: Their classes; `None`: not known.

    Raises:
        ValueError: No images, or another number of labels.

    Example:
        >>> ByteImages(torch.full((3, 1, 2, 2), 255, dtype=torch.uint8)).load(torch.tensor([1])).images.amax()
        tensor(1.)
    """

    def __init__(self, images: UInt8[Tensor, "n c h w"], labels: Int[Tensor, " n"] | None = None) -> None:
        if len(images) == 0 or (labels is not None and len(labels) != len(images)):
            raise ValueError(
                f"{len(images)} images with {'no' if labels is None else len(labels)} labels; at least one image, and "
                "a label each or none, is accepted"
            )
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def load(self, places: Int[Tensor, " b"]) -> Loaded:
        """The images at these places."""
        labels = None if self.labels is None else self.labels[places]
        return Loaded(self.images[places].float() / 127.5 - 1, labels, places)


class Packed(NamedTuple):
    """How a domain is packed: its file for each split, and where in it images and classes are."""

    files: dict[Split, str]
    keys: dict[Split, tuple[str, str]]
    read: Callable[[dict[str, Any], tuple[str, str]], tuple[np.ndarray, np.ndarray]]


def _plain(content: dict[str, Any], keys: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    return content[keys[0]], content[keys[1]]


def _last_axis(content: dict[str, Any], keys: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    return np.moveaxis(content[keys[0]], -1, 0), content[keys[1]]


def _nested(content: dict[str, Any], keys: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    part = content[keys[0]][int(keys[1])]
    return part[0], part[1]


def _both(file: str) -> dict[Split, str]:
    return {"train": file, "test": file}


DOMAINS: dict[str, Packed] = {
    "mnist": Packed(
        _both("mnist_data.mat"), {"train": ("train_32", "label_train"), "test": ("test_32", "label_test")}, _plain
    ),
    "mnist-m": Packed(
        _both("mnistm_with_label.mat"), {"train": ("train", "label_train"), "test": ("test", "label_test")}, _plain
    ),
    "svhn": Packed(
        {"train": "svhn_train_32x32.mat", "test": "svhn_test_32x32.mat"},
        {"train": ("X", "y"), "test": ("X", "y")},
        _last_axis,
    ),
    "syn": Packed(
        _both("syn_number.mat"),
        {"train": ("train_data", "train_label"), "test": ("test_data", "test_label")},
        _plain,
    ),
    "usps": Packed(_both("usps_28x28.mat"), {"train": ("dataset", "0"), "test": ("dataset", "1")}, _nested),
}
"""The five, by name."""


class DigitsFive(DomainData):
    """Digits-Five at 32 x 32 in RGB: `Digit-Five/*.mat` below the root, as M3SDA's authors give it.

    Of each domain at most 25,000 images train and 9,000 test, drawn by `seed`; USPS has 7,438 and 1,860. The target's
    training images come without their labels.

    Args:
        sources: Names of the source domains: `mnist`, `mnist-m`, `svhn`, `syn`, `usps`.
        targets: Name of the target.
        root: Folder that holds `Digit-Five`; the data root where `None`.
        most: Images a domain, to train on and to test on.
        merge_sources: Pour all sources together into one domain.
        source_batch: Images of each source an iteration and a process.
        target_batch: Images of the target.
        iterations: An epoch's.
        num_workers: Processes that load.
        seed: Of the order and of what is drawn.

    Raises:
        ValueError: Unknown domains, none, or one that is source and target; a malformed file, on reading it.
        FileNotFoundError: A file that is not there, on reading it.
    """

    def __init__(
        self,
        sources: Sequence[str] = ("mnist", "svhn", "syn", "usps"),
        targets: Sequence[str] = ("mnist-m",),
        root: str | None = None,
        most: tuple[int, int] = (25_000, 9_000),
        merge_sources: bool = False,
        source_batch: int = 32,
        target_batch: int = 32,
        iterations: int = 781,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(source_batch, target_batch, iterations=iterations, num_workers=num_workers, seed=seed)
        for name in [*sources, *targets]:
            if name not in DOMAINS:
                raise ValueError(f"Digits-Five has no domain {name!r}; there is {', '.join(DOMAINS)}")
        if not sources or not targets or set(sources) & set(targets):
            raise ValueError(
                f"sources {list(sources)} and targets {list(targets)}: at least one each, and none twice, is wanted"
            )
        if min(most) < 1:
            raise ValueError(f"most is {most}; at least 1 image each is accepted")
        self.sources = list(sources)
        self.targets = list(targets)
        self.root = Path(root) if root else default_root()
        self.most = most
        self.merge_sources = merge_sources

    def train_images(self) -> tuple[Sequence[ImageSet], Sequence[ImageSet], None]:
        """Sources with their labels, targets without."""
        sources = [self._read(name, "train") for name in self.sources]
        if self.merge_sources:
            sources = [(torch.cat([part[0] for part in sources]), torch.cat([part[1] for part in sources]))]
        targets = [ByteImages(self._read(name, "train")[0]) for name in self.targets]
        return [ByteImages(*part) for part in sources], targets, None

    def test_images(self) -> ImageSet:
        """The first target's test images with their labels."""
        return ByteImages(*self._read(self.targets[0], "test"))

    def _read(self, name: str, split: Split) -> tuple[Tensor, Tensor]:
        images, labels = load_digits_five(self.root, name, split)
        most = self.most[split == "test"]
        if len(images) <= most:
            return images, labels
        generator = torch.Generator().manual_seed(mix(self.seed, list(DOMAINS).index(name), split == "test"))
        drawn = torch.randperm(len(images), generator=generator)[:most]
        return images[drawn], labels[drawn]


def load_digits_five(root: Path, name: str, split: Split) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """One domain, all of a split.

    Args:
        root: Folder that holds `Digit-Five`.
        name: See `DigitsFive`.
        split: `train` or `test`.

    Returns:
        Images 0 to 255, enlarged to 32 x 32 where they are smaller, and classes; SVHN's class 10 is 0.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is no MATLAB file, lacks what is wanted, or images and classes do not belong together.
    """
    packed = DOMAINS[name]
    path = require(root / "Digit-Five" / packed.files[split], f"Digits-Five, {name}", "the page of M3SDA")
    try:
        content = loadmat(path)
    except (ValueError, TypeError, NotImplementedError, OSError, IndexError) as error:
        raise ValueError(f"{path} is not a MATLAB file: {error}") from None
    try:
        images, labels = packed.read(content, packed.keys[split])
        found = _images(np.asarray(images)), _classes(np.asarray(labels))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        there = ", ".join(key for key in content if not key.startswith("__"))
        raise ValueError(
            f"{path}: {' and '.join(packed.keys[split])} do not hold images and classes ({error}); there is {there}"
        ) from None
    if len(found[0]) != len(found[1]):
        raise ValueError(f"{path} holds {len(found[0])} images and {len(found[1])} classes for {split}")
    return found


def _images(array: np.ndarray) -> Tensor:
    """(n, h, w), (n, h, w, c) or (n, c, h, w), bytes or numbers, to RGB bytes of 32 x 32."""
    if array.ndim == 2:  # rows of pixels
        side = round(array.shape[1] ** 0.5)
        array = array.reshape(-1, side, side)
    images = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise ValueError(f"images of shape {array.shape}")
    if images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if np.issubdtype(array.dtype, np.floating) and float(images.max()) <= 1.0:
        images = images * 255
    if images.shape[-2:] != (32, 32):
        images = F.interpolate(images, (32, 32), mode="bilinear", align_corners=False)
    return images.round().clamp(0, 255).byte().expand(-1, 3, -1, -1).contiguous()


def _classes(array: np.ndarray) -> Tensor:
    """One-hot rows, or one number each, to classes."""
    if array.ndim == 2 and min(array.shape) > 1:
        array = array.argmax(1)
    labels = torch.from_numpy(array.reshape(-1).astype(np.int64))
    labels[labels == 10] = 0
    if int(labels.min()) < 0 or int(labels.max()) > 9:
        raise ValueError(f"classes from {int(labels.min())} to {int(labels.max())}")
    return labels
