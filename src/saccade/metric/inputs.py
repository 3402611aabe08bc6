"""What every loss and measure of this domain asks of embeddings and labels."""

from __future__ import annotations

import torch
from torch import Tensor


def check_embeddings(embeddings: Tensor, embedding_size: int | None = None, name: str = "embeddings") -> None:
    """Raise unless `embeddings` is a float matrix with rows, of the right width.

    Args:
        embeddings: What came.
        embedding_size: The width that is wanted; any where `None`.
        name: What to call it in the message.

    Raises:
        ValueError: Not two-dimensional, no rows, or another width.
        TypeError: Not floating point.
    """
    if embeddings.ndim != 2 or (embedding_size is not None and embeddings.shape[1] != embedding_size):
        width = "d" if embedding_size is None else embedding_size
        raise ValueError(f"{name} have the shape {tuple(embeddings.shape)}; (batch, {width}) is accepted")
    if not embeddings.is_floating_point():
        raise TypeError(f"{name} are {embeddings.dtype}; a floating-point tensor is accepted")
    if embeddings.shape[0] == 0:
        raise ValueError(f"{name} are empty: at least one row is needed")


def check_labels(labels: Tensor, rows: int, num_classes: int | None = None) -> None:
    """Raise unless `labels` holds one integer for each of `rows` embeddings, within the classes where they are given.

    Looking at the values waits for the device; it is skipped while `torch.compile` traces.

    Args:
        labels: What came.
        rows: The number of embeddings.
        num_classes: Labels have to be in [0, num_classes); not looked at where `None`.

    Raises:
        ValueError: Another number of labels, or one outside the classes.
        TypeError: Not integers.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels are {labels.dtype}; an integer tensor is accepted")
    if labels.shape != (rows,):
        raise ValueError(
            f"labels have the shape {tuple(labels.shape)}; one for each of the {rows} embeddings is accepted"
        )
    if num_classes is None or torch.compiler.is_compiling():
        return
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= num_classes:
        outside = low if low < 0 else high
        raise ValueError(f"label {outside} is outside the classes 0 to {num_classes - 1} ({num_classes} classes)")


def check_finite(embeddings: Tensor, name: str = "embeddings") -> None:
    """Raise a `ValueError` that counts the rows which hold NaN or infinity."""
    bad = int((~torch.isfinite(embeddings)).any(dim=-1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(embeddings)} {name} hold NaN or infinity: did the training diverge?")


class ArgumentError(ValueError, AssertionError):
    """A `ValueError` that code which expects the reference library's `AssertionError` catches, too."""
