"""Small image sets held in memory: digits, MNIST, Fashion-MNIST, USPS, Omniglot, read from their own layouts."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torchvision
from jaxtyping import Int64, UInt8
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_digits as sklearn_digits
from torch import Tensor

from saccade.data.root import require

Split = Literal["train", "test"]


@dataclass(frozen=True)
class LabelledImages:
    """Grey images of one size, with their classes.

    Args:
        images: (n, h, w), 0 to 255; ink is bright on dark in all sets here.
        labels: (n,), 0 to the number of classes - 1.
        names: Name of each class.
    """

    images: UInt8[Tensor, "n h w"]
    labels: Int64[Tensor, " n"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def of(self, classes: Sequence[int]) -> LabelledImages:
        """Only these classes, renumbered from 0 in the order given."""
        new = torch.full((len(self.names),), -1)
        new[torch.tensor(classes)] = torch.arange(len(classes))
        kept = new[self.labels] >= 0
        return LabelledImages(self.images[kept], new[self.labels[kept]], tuple(self.names[c] for c in classes))


def load_digits() -> LabelledImages:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn (UCI optical recognition).

    Example:
        >>> load_digits().images.shape
        torch.Size([1797, 8, 8])
    """
    bunch = sklearn_digits()
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))
    return LabelledImages(images, torch.from_numpy(bunch.target.astype(np.int64)), tuple("0123456789"))


def load_mnist(root: Path, split: Split, *, download: bool = False) -> LabelledImages:
    """MNIST from torchvision's layout, `MNIST/raw` (below the root or its folder `mnist`), packed or unpacked.

    Args:
        root: The data root.
        split: 60,000 or 10,000 images of 28 x 28.
        download: Let torchvision fetch what is missing.

    Returns:
        The images.

    Raises:
        FileNotFoundError: The split is not there.
        ValueError: A file is not in the IDX format, or the two files do not belong together.
    """
    return _idx_set(root, ("mnist/MNIST/raw", "MNIST/raw"), split, "0123456789", torchvision.datasets.MNIST, download)


def load_fashion_mnist(root: Path, split: Split, *, download: bool = False) -> LabelledImages:
    """Fashion-MNIST from torchvision's layout, `FashionMNIST/raw`; otherwise as `load_mnist`."""
    names = torchvision.datasets.FashionMNIST.classes
    folders = ("fashion-mnist/FashionMNIST/raw", "FashionMNIST/raw")
    return _idx_set(root, folders, split, names, torchvision.datasets.FashionMNIST, download)


def load_usps(root: Path, split: Split, *, download: bool = False) -> LabelledImages:
    """USPS from torchvision's layout, `usps.bz2` and `usps.t.bz2` (below the root or its folder `usps`).

    Args:
        root: The data root.
        split: 7,291 or 2,007 images of 16 x 16.
        download: Let torchvision fetch what is missing.

    Returns:
        The images.

    Raises:
        FileNotFoundError: The split is not there.
        ValueError: A line is not in the LIBSVM form; the message names file and line.
    """
    name = "usps.bz2" if split == "train" else "usps.t.bz2"
    if download:
        torchvision.datasets.USPS(str(root), train=split == "train", download=True)
    path = _first(root, (f"usps/{name}", name), f"USPS, {split}", "the LIBSVM data page")
    images, labels = [], []
    with bz2.open(path, "rt") as lines:
        for number, line in enumerate(lines, start=1):
            label, *pixels = line.split()
            values = [float(pixel.partition(":")[2]) for pixel in pixels]
            if len(values) != 256 or not label.isdigit() or not 1 <= int(label) <= 10:
                raise ValueError(f"{path}, line {number}: wanted 'label 1:v ... 256:v' with a label from 1 to 10")
            images.append(values)
            labels.append(int(label) - 1)
    grey = ((torch.tensor(images) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return LabelledImages(grey.reshape(-1, 16, 16), torch.tensor(labels), tuple("0123456789"))


OMNIGLOT_FOLDERS = {
    "small1": ("omniglot/images_background_small1", "images_background_small1"),
    "small2": ("omniglot/images_background_small2", "images_background_small2"),
    "background": ("omniglot-py/images_background", "omniglot/images_background"),
    "evaluation": ("omniglot-py/images_evaluation", "omniglot/images_evaluation"),
}


def load_omniglot(root: Path, part: str, *, size: int = 28, alphabets: Sequence[str] = ()) -> LabelledImages:
    """Omniglot characters, from folders as torchvision unpacks them or from the authors' zip files.

    Args:
        root: The data root.
        part: `small1`, `small2` (the authors' small background sets), `background` or `evaluation`.
        size: Side to which the 105 x 105 drawings are reduced (area average).
        alphabets: Only these; all where empty.

    Returns:
        20 drawings of each character; classes are named `Alphabet/characterNN` and sorted.

    Raises:
        FileNotFoundError: The part is not there.
        ValueError: Unknown part or alphabet.
    """
    if part not in OMNIGLOT_FOLDERS:
        raise ValueError(f"no part {part!r} of Omniglot; there is {', '.join(OMNIGLOT_FOLDERS)}")
    places = [place for folder in OMNIGLOT_FOLDERS[part] for place in (folder, f"{folder}.zip")]
    path = _first(root, places, f"Omniglot, {part}", "the repository brendenlake/omniglot")
    drawings = list(_zipped(path) if path.suffix == ".zip" else _unpacked(path))
    known = sorted({name.split("/")[0] for name, _ in drawings})
    unknown = [alphabet for alphabet in alphabets if alphabet not in known]
    if unknown:
        raise ValueError(f"no alphabet {unknown[0]!r} in {path}; there is {', '.join(known)}")
    kept = [(name, data) for name, data in drawings if not alphabets or name.split("/")[0] in alphabets]
    names = sorted({name for name, _ in kept})
    number = {name: index for index, name in enumerate(names)}
    images = []
    for name, data in kept:
        try:
            drawing = Image.open(io.BytesIO(data)).convert("L").resize((size, size), Image.Resampling.BOX)
        except UnidentifiedImageError:
            raise ValueError(f"a drawing of {name} in {path} is not an image") from None
        images.append(255 - np.asarray(drawing))
    labels = torch.tensor([number[name] for name, _ in kept])
    return LabelledImages(torch.from_numpy(np.stack(images)), labels, tuple(names))


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            parts = name.split("/")
            if name.endswith(".png") and "__MACOSX" not in parts:
                yield "/".join(parts[-3:-1]), archive.read(name)


def _unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.glob("*/*/*.png")):
        yield f"{file.parent.parent.name}/{file.parent.name}", file.read_bytes()


def _first(root: Path, places: Sequence[str], what: str, where: str) -> Path:
    for place in places:
        if (root / place).exists():
            return root / place
    return require(root / places[0], what, where)


def _idx_set(
    root: Path,
    folders: Sequence[str],
    split: Split,
    names: Sequence[str],
    official: Callable[..., object],
    download: bool,
) -> LabelledImages:
    if download:
        official(str(root), train=split == "train", download=True)
    stem = "train" if split == "train" else "t10k"
    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        places = [f"{folder}/{stem}-{kind}{packed}" for folder in folders for packed in (".gz", "")]
        what = f"{folders[-1].split('/')[0]}, {split} part"
        arrays.append(_read_idx(_first(root, places, what, "torchvision (download=True) or the set's own page")))
    images, labels = arrays
    if images.ndim != 3 or labels.shape != (len(images),):
        raise ValueError(f"{folders[-1]}, {split}: {tuple(images.shape)} images and {tuple(labels.shape)} labels")
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), tuple(names))


def _read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes: two zeros, type 8, the number of axes, their sizes as big-endian int32, data."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or not gzip: {error}") from None
    axes = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or axes not in (1, 3):
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", axes, 4))
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if data.size != int(np.prod(shape)):
        raise ValueError(f"{path} holds {data.size} values, its header says {shape}")
    return data.reshape(shape).copy()
