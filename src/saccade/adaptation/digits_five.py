"""Digits-Five: MNIST, MNIST-M, SVHN, synthetic digits and USPS, from the files of M3SDA (arXiv:1812.01754)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from saccade.adaptation.datamodule import DomainSets
from saccade.adaptation.images import ImageSet, TensorImages
from saccade.data.matlab import read_mat
from saccade.data.root import default_root, require

Split = Literal["train", "test"]

DOMAINS = ("mnist", "mnistm", "svhn", "syn", "usps")
TRAIN, TEST = 25_000, 9_000
"""As many images the protocol takes of each domain; of USPS all it has."""


def load_digits_five(
    root: Path, domain: str, split: Split, size: int = 32
) -> tuple[Float[Tensor, "n 3 s s"], Int[Tensor, " n"]]:
    """One domain, in RGB in [-1, 1].

    Args:
        root: Its folder `Digits-Five` holds `mnist_data.mat`, `mnistm_with_label.mat`, `svhn_{train,test}_32x32.mat`,
            `syn_number.mat` and `usps_28x28.mat`.
        domain: One of `DOMAINS`.
        split: The first 25,000 of the training images, or the first 9,000 of the test images.
        size: Side of the images.

    Returns:
        Images and classes.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: Unknown domain, or a file that is no such file.
    """
    if domain not in DOMAINS:
        raise ValueError(f"Digits-Five has no domain {domain!r}; there is {', '.join(DOMAINS)}")
    name = {
        "mnist": "mnist_data.mat",
        "mnistm": "mnistm_with_label.mat",
        "svhn": f"svhn_{split}_32x32.mat",
        "syn": "syn_number.mat",
        "usps": "usps_28x28.mat",
    }[domain]
    file = require(root / "Digits-Five" / name, "Digits-Five", "the page of M3SDA")
    content = read_mat(file)
    try:
        images, labels = _entries(domain, content, split)
    except (KeyError, IndexError) as error:
        raise ValueError(f"{file} lacks {error}; it is to be M3SDA's file") from None
    most = TRAIN if split == "train" else TEST
    pixels, classes = torch.from_numpy(np.ascontiguousarray(images[:most])), _classes(labels[:most])
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if len(pixels) != len(classes) or pixels.shape[-1] not in (1, 3):
        raise ValueError(f"{file} holds images of shape {tuple(images.shape)} and labels of {tuple(labels.shape)}")
    scale = 255.0 if float(pixels.max()) > 1 else 1.0
    small = F.interpolate(pixels.permute(0, 3, 1, 2).float() / scale, (size, size), mode="bilinear", antialias=True)
    return (small * 2 - 1).expand(-1, 3, -1, -1).contiguous(), classes


class DigitsFive(DomainSets):
    """Digits-Five in memory; each domain may be the target.

    Args:
        target: Tested on; all other domains are sources.
        root: The data root.
        size: Side of the images.
        merge_sources: Pour the sources together, for methods that do not know the domains.
        augment: Applied to each training batch.
        source_batch: Images of each source an iteration and a process.
        target_batch: Images of the target.
        iterations: An epoch's.
        seed: Of the order.
    """

    def __init__(
        self,
        target: Literal["mnist", "mnistm", "svhn", "syn", "usps"] = "mnistm",
        root: str | None = None,
        size: int = 32,
        merge_sources: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
        source_batch: int = 32,
        target_batch: int = 128,
        iterations: int = 500,
        seed: int = 0,
    ) -> None:
        place = Path(root) if root else default_root()
        read: list[tuple[Tensor, Tensor]] = [
            load_digits_five(place, name, "train", size) for name in DOMAINS if name != target
        ]
        if merge_sources:
            read = [(torch.cat([images for images, _ in read]), torch.cat([labels for _, labels in read]))]
        sources: Sequence[ImageSet] = [TensorImages(images, labels, augment) for images, labels in read]
        super().__init__(
            sources,
            [TensorImages(load_digits_five(place, target, "train", size)[0], augment=augment)],
            test=TensorImages(*load_digits_five(place, target, "test", size)),
            source_batch=source_batch,
            target_batch=target_batch,
            iterations=iterations,
            seed=seed,
        )


def _entries(domain: str, content: dict[str, Any], split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, h, w) or (n, h, w, c), and labels in whatever form."""
    if domain == "mnist":
        return content[f"{split}_32"], content[f"label_{split}"]
    if domain == "mnistm":
        return content[split], content[f"label_{split}"]
    if domain == "svhn":
        return content["X"].transpose(3, 0, 1, 2), content["y"]
    if domain == "syn":
        return content[f"{split}_data"], content[f"{split}_label"]
    both = content["dataset"][0 if split == "train" else 1]
    return both[0].squeeze(), both[1]


def _classes(labels: np.ndarray) -> Int[Tensor, " n"]:
    """From one-hot rows or a column; SVHN's 10 is a zero."""
    found = labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    return torch.from_numpy(found.astype(np.int64)) % 10
