"""Sets of images for adaptation: whole batches by their places, from memory or from files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.adaptation.method import AdaptationMethod, Predictions
from saccade.data.records import ImageRecords, Record

Augment = Callable[[Tensor], Tensor]
"""A batch of images to a batch of images; draws from torch's global generator, which is seeded for every batch."""


class Loaded(NamedTuple):
    """A batch of one domain: images, their classes where they are known, and the places that were asked for.

    In evaluation, files that cannot be read are not among them.
    """

    images: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"] | None
    places: Int[Tensor, " b"]


class ImageSet(ABC):
    """Images of one domain.

    Attributes:
        labels: Their classes; `None` where they are not known.
    """

    labels: Int[Tensor, " n"] | None

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def load(self, places: Int[Tensor, " b"]) -> Loaded:
        """The images at these places."""


class TensorImages(ImageSet):
    """Images held in memory.

    Args:
        images: As the network takes them.
        labels: Their classes; `None`: not known.
        augment: Applied to each batch.

    Raises:
        ValueError: No images, or another number of labels.

    Example:
        >>> TensorImages(torch.rand(5, 1, 8, 8)).load(torch.tensor([3, 1])).images.shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"] | None = None,
        augment: Augment | None = None,
    ) -> None:
        if len(images) == 0:
            raise ValueError("a domain has no images")
        if labels is not None and labels.shape != (len(images),):
            raise ValueError(f"there are {len(images)} images and labels of shape {tuple(labels.shape)}")
        self.images = images
        self.labels = labels
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def load(self, places: Int[Tensor, " b"]) -> Loaded:
        """The images at these places, augmented."""
        images = self.images[places]
        labels = None if self.labels is None else self.labels[places]
        return Loaded(self.augment(images) if self.augment else images, labels, places)


class FileImages(ImageSet):
    """Image files, read when they are asked for.

    A file that cannot be read is warned of and counted; in training the next one takes its place, in evaluation it is
    left out.

    Args:
        records: The files; a label of -1 stands for one that is not known.
        transform: From a PIL image in RGB to a tensor.
        train: Whether unreadable files are replaced.
        strict: Stop at a file that cannot be read.

    Raises:
        ValueError: No files, or labels for some of them only.
    """

    def __init__(
        self,
        records: Sequence[Record],
        transform: Callable[[Any], Tensor],
        train: bool = False,
        strict: bool = False,
    ) -> None:
        if not records:
            raise ValueError("a domain has no images")
        self.files = ImageRecords(records, transform, train=train, strict=strict)
        labels = torch.tensor([record.label for record in records])
        unknown = int((labels < 0).sum())
        if 0 < unknown < len(records):
            raise ValueError(f"{unknown} of {len(records)} images of a domain have no label; all or none is accepted")
        self.labels = None if unknown else labels

    def __len__(self) -> int:
        return len(self.files)

    @property
    def skipped(self) -> int:
        """Files that could not be read so far."""
        return int(self.files.skipped)

    def load(self, places: Int[Tensor, " b"]) -> Loaded:
        """Read and transform.

        Raises:
            ValueError: None of the files can be read.
        """
        samples = [self.files[place] for place in places.tolist()]
        read = [sample for sample in samples if sample is not None]
        if not read:
            first = self.files.records[int(places[0])].path
            raise ValueError(f"none of the {len(places)} images of a batch can be read; the first is {first}")
        images = torch.stack([image for image, _ in read])
        labels = None if self.labels is None else torch.tensor([label for _, label in read])
        return Loaded(images, labels, places[torch.tensor([sample is not None for sample in samples])])


@torch.no_grad()
def answers(
    method: AdaptationMethod, images: ImageSet, device: torch.device | str = "cpu", domain: int = -1, size: int = 256
) -> tuple[Predictions, Int[Tensor, " n"]]:
    """What a trained method says about all images of a set that can be read.

    Args:
        method: In evaluation mode.
        images: The set.
        device: Where the method is.
        domain: Which domain they are of.
        size: Images a batch.

    Returns:
        The answers, on the CPU, and the places of their images in the set.
    """
    said, places = [], []
    for part in torch.arange(len(images)).split(size):
        loaded = images.load(part)
        said.append(method.predict(loaded.images.to(device), domain))
        places.append(loaded.places)
    joined = [torch.cat(column).cpu() for column in zip(*((p.probabilities, p.embeddings) for p in said), strict=True)]
    return Predictions(joined[0], joined[1]), torch.cat(places)
