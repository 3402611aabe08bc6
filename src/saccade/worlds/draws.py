"""Random numbers by address: each is a function of (seed, split, index, stream, place) and of nothing else.

A world that draws so can make sample 17 alone, or samples 0 to 4095 at once, in any worker and process, with the same
bits; there is no generator whose state could differ. The numbers come from integer arithmetic (splitmix64), so they do
not depend on the machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)


def addresses(seed: int, split: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """A key for each sample.

    Args:
        seed: Seed of the world.
        split: Name of the split; each is independent of the others.
        indices: Samples.

    Returns:
        (n,) uint64.

    Example:
        >>> bool(addresses(0, "train", [3])[0] == addresses(0, "train", [2, 3])[1])
        True
    """
    base = _mix(np.uint64(seed % 2**64) ^ _mix(np.uint64(zlib.crc32(split.encode()))))
    with np.errstate(over="ignore"):
        return _mix(base + np.asarray(indices, dtype=np.uint64) * _STEP)


def uniform(keys: np.ndarray, stream: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Uniform numbers in [0, 1).

    Args:
        keys: One for each sample, see `addresses`.
        stream: Name of what is drawn; each is independent of the others.
        shape: Numbers a sample.

    Returns:
        (n, *shape) float64.

    Example:
        >>> uniform(addresses(0, "train", range(2)), "speed").shape
        (2,)
    """
    return (_bits(keys, stream, shape) >> np.uint64(11)) * 2.0**-53


def normal(keys: np.ndarray, stream: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Bell-shaped numbers of mean 0 and variance 1: sums of four uniform ones, so never beyond 3.5.

    Args:
        keys: One for each sample, see `addresses`.
        stream: Name of what is drawn.
        shape: Numbers a sample.

    Returns:
        (n, *shape) float32.

    Example:
        >>> bool(abs(normal(addresses(0, "train", range(9)), "texture", (99, 99)).std() - 1) < 0.01)
        True
    """
    quarters = _bits(keys, stream, shape).view(np.uint16).reshape(len(keys), *shape, 4)
    total = quarters[..., 0].astype(np.float32)
    for place in range(1, 4):
        total += quarters[..., place]
    return (total - np.float32(2 * 65535)) * np.float32(np.sqrt(3.0) / 65536)


def _bits(keys: np.ndarray, stream: str, shape: tuple[int, ...]) -> np.ndarray:
    start = _mix(keys ^ _mix(np.uint64(zlib.crc32(stream.encode()))))
    with np.errstate(over="ignore"):
        places = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64) * _STEP
        return _mix(start[:, None] + places).reshape(len(keys), *shape)


def _mix(x: np.ndarray | np.uint64) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = np.atleast_1d(np.asarray(x, dtype=np.uint64)).copy()
        x += _STEP
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x
