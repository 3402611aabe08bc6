"""Lists of labelled image files, read one by one; those that cannot be read are skipped and counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset, default_collate

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""Of the files that are taken for images."""


@dataclass(frozen=True)
class Record:
    """One image: where it is, its class, and for In-shop the part it plays in testing (0 query, 1 gallery)."""

    path: Path
    label: int
    part: int = 0


class ImageRecords(Dataset[tuple[Any, ...] | None]):
    """Images of a list of records, decoded and transformed when asked for.

    An image that cannot be read is warned of, with the count so far: in training the next one takes its place, in
    evaluation it gives `None`, which [`without_unreadable`][saccade.data.records.without_unreadable] leaves out.

    Args:
        records: What there is.
        transform: From a PIL image in RGB to a tensor.
        with_part: Whether samples name their part.
        train: Which of the two.
        strict: Raise where an image cannot be read.
    """

    def __init__(
        self,
        records: Sequence[Record],
        transform: Callable[[Any], Tensor],
        with_part: bool = False,
        train: bool = False,
        strict: bool = False,
    ) -> None:
        self.records = list(records)
        self.transform = transform
        self.with_part = with_part
        self.train = train
        self.strict = strict
        self.skipped = torch.zeros((), dtype=torch.int64).share_memory_()  # over all loading processes

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Any, ...] | None:
        """(image, label), and the part where it is asked for."""
        for step in range(len(self) if self.train else 1):
            record = self.records[(index + step) % len(self)]
            try:
                image = Image.open(record.path).convert("RGB")
            except (UnidentifiedImageError, OSError) as error:
                message = f"{record.path} cannot be read as an image: {error}"
                if self.strict:
                    raise ValueError(message) from None
                self.skipped += 1
                warnings.warn(f"{message}; skipped, {int(self.skipped)} so far", stacklevel=2)
                continue
            sample = self.transform(image), record.label
            return (*sample, record.part) if self.with_part else sample
        if self.train:
            raise ValueError(f"none of the {len(self)} images can be read; the last tried is {record.path}")
        return None


def without_unreadable(samples: list[tuple[Any, ...] | None]) -> Any:
    """Join samples to a batch, leaving out those that could not be read.

    Raises:
        ValueError: None is left.
    """
    read = [sample for sample in samples if sample is not None]
    if not read:
        raise ValueError(f"none of the {len(samples)} images of a batch can be read")
    return default_collate(read)


def class_folders(classes: Sequence[Path]) -> list[Record]:
    """The images of one folder a class, in the order of the folders.

    Args:
        classes: The folders; their places are the labels.

    Returns:
        JPEG, PNG, BMP and WebP files, sorted within each folder.

    Raises:
        ValueError: There are none.
    """
    records = [
        Record(path, label)
        for label, folder in enumerate(classes)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_ENDINGS
    ]
    if not records:
        raise ValueError(
            f"no images in the {len(classes)} class folders" + (f" of {classes[0].parent}" if classes else "")
        )
    return records
