"""Images with continuous labels in their layouts: the pose archive of the paper's authors, and a plain one."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from saccade.data.matlab import read_mat
from saccade.data.records import IMAGE_ENDINGS
from saccade.data.root import default_root, require
from saccade.data.transforms import CaffeInput
from saccade.metric.neighbour_batches import LabelNeighbours, Neighbours
from saccade.metric.neighbour_data import Indexed, Mining, NeighbourData, NeighbourGroups
from saccade.nn.input_spec import IMAGENET_MEAN, IMAGENET_STD

CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Blue, green, red, subtracted from 0..255."""


class ContinuousImages(NeighbourData):
    """Photographs with continuous labels, with the authors' augmentation.

    `pose`, the archive of MPII Human Pose crops: `trn/*.jpg`, `val/*.jpg`, `list_nn.pkl` and `dist_nn.pkl` (for each
    training image all others sorted by distance of pose, and those distances), `dist_pose_val.mat` (distances between
    all test images). `distances`, for anything else: `trn/*`, `val/*`, and for both `distances_PART.npy` (n, n) or
    `labels_PART.npy` (n, k), compared by Euclidean distance. Rows are in the order of sorted file names.

    Args:
        layout: Which.
        root: The folder; the data root where `None`.
        size: Side of what the network sees.
        resized: Side to which images are brought before the crop.
        jitter: Greatest relative change of the crop's side in training, and of its place (of the resized image).
        flip: Mirror half of the groups, whole.
        caffe: BGR in 0..255 minus the Caffe networks' mean, instead of ImageNet's RGB normalisation.
        strict: Stop at an image that cannot be read, instead of leaving it out.
        neighbours: Samples of a group beside the anchor.
        mining: See [`NeighbourData`][saccade.metric.neighbour_data.NeighbourData].
        num_nearest: Nearest neighbours in every group.
        num_positives: With `binary`: so many of the nearest count as the same.
        num_queries: The first so many test images are queries.
        eval_batch_size: Images at a time in evaluation.
        batch_size: Anchors a step and a process.
        num_workers: Processes that load.
        seed: Of order, draws and augmentation.
    """

    def __init__(
        self,
        layout: Literal["pose", "distances"] = "distances",
        root: str | None = None,
        size: int = 224,
        resized: int = 288,
        jitter: tuple[float, float] = (0.05, 0.03),
        flip: bool = True,
        caffe: bool = True,
        strict: bool = False,
        neighbours: int = 149,
        mining: Mining = "dense",
        num_nearest: int = 5,
        num_positives: int = 30,
        num_queries: int = 1919,
        eval_batch_size: int = 128,
        batch_size: int = 1,
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(
            neighbours, mining, num_nearest, num_positives, num_queries, eval_batch_size, batch_size, num_workers, seed
        )
        if not 0 < size <= resized:
            raise ValueError(f"a crop of {size} does not fit images of {resized} pixels")
        self.layout = layout
        self.root = Path(root) if root else default_root()
        self.flip = flip
        self.strict = strict
        normalize = [CaffeInput(CAFFE_MEAN) if caffe else v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), *normalize]
        self.train_transform = v2.Compose([JitteredCrop(size, resized, *jitter), *end])
        self.test_transform = v2.Compose([JitteredCrop(size, resized, 0.0, 0.0), *end])

    def train_set(self) -> NeighbourGroups:
        """Anchors with their neighbours."""
        images = Photographs(self.root / "trn", self.train_transform, self.strict)
        lists: Neighbours
        if self.layout == "pose":
            lists = StoredNeighbours(self.root / "list_nn.pkl", self.root / "dist_nn.pkl")
        else:
            lists = LabelNeighbours(self._distances("trn"))
        if len(lists) != len(images):
            raise ValueError(f"{images.folder} has {len(images)} images, and there are labels for {len(lists)}")
        return NeighbourGroups(images.load, lists, self.draw(len(lists) - 1), self.flip)

    def val_set(self) -> Indexed:
        """Test images, the queries first."""
        images = Photographs(self.root / "val", self.test_transform, self.strict)
        if len(images) <= self.num_queries:
            raise ValueError(
                f"{images.folder} has {len(images)} images: {self.num_queries} queries leave nothing to search"
            )
        return Indexed(images.load, len(images))

    def query_distances(self) -> Float[Tensor, "q n"]:
        """From the matrix of test distances."""
        whole = _matrix(self.root / "dist_pose_val.mat") if self.layout == "pose" else self._distances("val")
        count = len(Photographs(self.root / "val", self.test_transform))
        if whole.shape != (count, count):
            raise ValueError(f"test distances are {tuple(whole.shape)}; ({count}, {count}), a row an image, is wanted")
        return whole[: self.num_queries, self.num_queries :]

    def _distances(self, part: str) -> Float[Tensor, "n n"]:
        labels = self.root / f"labels_{part}.npy"
        if labels.exists():
            values = _array(labels)
            return torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")
        what = f"a matrix of label distances, or labels in {labels.name},"
        return _array(require(self.root / f"distances_{part}.npy", what, "you: one row for each image"))


class Photographs:
    """Images of a folder in the order of their names.

    Args:
        folder: Where they are.
        transform: From a PIL image in RGB to a tensor.
        strict: Raise where an image cannot be read, instead of a warning with the count so far.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No image in it.
    """

    def __init__(self, folder: Path, transform: Callable[[Any], Tensor], strict: bool = False) -> None:
        self.folder = require(folder, "the image folder", "the authors' archive, or you")
        self.paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
        if not self.paths:
            raise ValueError(f"no images in {folder}: files that end in {', '.join(sorted(IMAGE_ENDINGS))} are wanted")
        self.transform = transform
        self.strict = strict
        self.skipped = torch.zeros((), dtype=torch.int64).share_memory_()  # over all loading processes

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Tensor | None:
        """One image, or `None` where it cannot be read."""
        try:
            image = Image.open(self.paths[index]).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            message = f"{self.paths[index]} cannot be read as an image: {error}"
            if self.strict:
                raise ValueError(message) from None
            self.skipped += 1
            warnings.warn(f"{message}; skipped, {int(self.skipped)} so far", stacklevel=2)
            return None
        return self.transform(image)


class JitteredCrop:
    """The central crop of a resized image, a little larger or smaller, and a little beside the centre.

    Args:
        size: Side of the result.
        resized: Side to which the image is brought first.
        scale: Greatest relative change of the crop's side.
        shift: Greatest shift of its centre in x and in y, as a share of the resized image.

    Example:
        >>> JitteredCrop(224, 288, 0.05, 0.03)(Image.new("RGB", (300, 200))).size
        (224, 224)
    """

    def __init__(self, size: int, resized: int, scale: float, shift: float) -> None:
        self.size, self.resized, self.scale, self.shift = size, resized, scale, shift

    def __call__(self, image: Image.Image) -> Image.Image:
        """Crop; where `scale` or `shift` is not 0 three numbers come from torch's global generator."""
        grow, right, down = (2 * torch.rand(3) - 1).tolist() if self.scale or self.shift else (0.0, 0.0, 0.0)
        half = self.size * (1 + self.scale * grow) / 2
        x, y = (self.resized * (0.5 + self.shift * move) for move in (right, down))
        per_x, per_y = image.width / self.resized, image.height / self.resized
        box = ((x - half) * per_x, (y - half) * per_y, (x + half) * per_x, (y + half) * per_y)
        inside = max(box[0], 0.0), max(box[1], 0.0), min(box[2], image.width), min(box[3], image.height)
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=inside)


class StoredNeighbours:
    """Sorted neighbour lists from files.

    Args:
        indices: Pickle of arrays or lists: for each sample all others, the nearest first (itself may be among them).
        distances: Their label distances, in the same order.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file holds something else, or the two do not belong together.
    """

    def __init__(self, indices: Path, distances: Path) -> None:
        self.path = indices
        self.order, self.distances = (
            read_pickled_arrays(require(path, "the sorted neighbour lists", "the authors' archive"))
            for path in (indices, distances)
        )
        if [len(row) for row in self.order] != [len(row) for row in self.distances]:
            raise ValueError(f"{indices} and {distances} hold lists of other lengths: they do not belong together")

    def __len__(self) -> int:
        return len(self.order)

    def of(self, anchor: int) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
        """All other samples, the nearest first, and their label distances."""
        order = torch.from_numpy(np.asarray(self.order[anchor], dtype=np.int64))
        distances = torch.from_numpy(np.asarray(self.distances[anchor], dtype=np.float64)).float()
        if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(self):
            raise ValueError(f"{self.path}, list {anchor}: it names samples outside 0 to {len(self) - 1}")
        kept = order != anchor
        if int(kept.sum()) != len(self) - 1:
            raise ValueError(f"{self.path}, list {anchor}: {int(kept.sum())} others, {len(self) - 1} are wanted")
        return order[kept], distances[kept]


def read_pickled_arrays(path: Path) -> Sequence[Any]:
    """Numpy arrays or lists of numbers from a pickle, without running anything that the file might name.

    Args:
        path: The file.

    Returns:
        A sequence of rows.

    Raises:
        ValueError: It names anything but numpy's arrays, or is no sequence of rows.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a pickle of arrays: {error}") from None
    if not isinstance(content, (list, tuple, np.ndarray)) or not len(content) or np.ndim(content[0]) != 1:
        raise ValueError(f"{path} is not a list of rows of numbers")
    return list(content)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds lists, numbers, texts and numpy arrays, and refuses every other name."""

    NAMES = frozenset({"_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer"})
    MODULES = frozenset(
        {"numpy", *(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric"))}
    )

    def find_class(self, module: str, name: str) -> Any:
        """The constructors of arrays."""
        if module in self.MODULES and name in self.NAMES:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not loaded")


def _array(path: Path) -> Float[Tensor, "n k"]:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file of numbers: {error}") from None
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds {values.dtype} {values.shape}; numbers with a row for each image are wanted")
    return torch.from_numpy(values.astype(np.float32))


@lru_cache(maxsize=1)
def _matrix(path: Path) -> Float[Tensor, "n n"]:
    content = read_mat(require(path, "the matrix of test distances", "the authors' archive"))
    arrays = [value for value in content.values() if np.ndim(value) == 2]
    if len(arrays) != 1:
        raise ValueError(f"{path} holds {len(arrays)} matrices; one is wanted")
    return torch.from_numpy(np.asarray(arrays[0], dtype=np.float32))
