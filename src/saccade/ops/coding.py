"""Writing label streams in few bits: entropy, canonical Huffman codes, fixed-width packing."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

LONGEST = 32
"""Longest code word that is decoded; a stream would need millions of symbols for one."""


def entropy_bits(counts: Int[Tensor, " k"]) -> float:
    """Entropy of an empirical distribution in bits a symbol: what no code for single symbols goes below.

    Args:
        counts: How often each symbol occurs; not negative, at least one positive.

    Returns:
        0 for a single symbol, log2 k for k equally frequent ones.

    Example:
        >>> entropy_bits(torch.tensor([2, 1, 1]))
        1.5
    """
    if not len(counts) or int(counts.min()) < 0 or int(counts.sum()) == 0:
        raise ValueError("entropy wants counts that are not negative, at least one of them positive")
    shares = counts[counts > 0].double() / counts.sum()
    return float(-(shares * shares.log2()).sum()) + 0.0


def huffman_lengths(counts: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
    """Lengths in bits of the words of a Huffman code.

    Args:
        counts: How often each symbol occurs.

    Returns:
        One length a symbol; 0 for a symbol that does not occur, 1 where only one does.

    Example:
        >>> huffman_lengths(torch.tensor([5, 2, 1, 0]))
        tensor([1, 2, 2, 0])
    """
    if not len(counts) or int(counts.min()) < 0 or int(counts.sum()) == 0:
        raise ValueError("a Huffman code wants counts that are not negative, at least one of them positive")
    heap = [(count, symbol, [symbol]) for symbol, count in enumerate(counts.tolist()) if count]
    lengths = [0] * len(counts)
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, order, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (*left, *right):
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, order, left + right))
    return torch.tensor(lengths, dtype=torch.int64)


def huffman_encode(symbols: Int[Tensor, " n"], lengths: Int[Tensor, " k"]) -> UInt8[Tensor, " bytes"]:
    """Write symbols with the canonical code of these lengths, first bit first, padded with zeros to whole bytes.

    Args:
        symbols: 0 to k - 1.
        lengths: From `huffman_lengths`.

    Returns:
        The bytes, on the CPU.

    Raises:
        ValueError: A symbol without a word, or lengths that make no code.
    """
    words, sizes = _canonical(lengths), lengths.cpu().numpy()
    stream = symbols.cpu().numpy().astype(np.int64)
    if len(stream) and (stream.min() < 0 or stream.max() >= len(sizes) or (sizes[stream] == 0).any()):
        raise ValueError("a symbol has no word in this code")
    longest = int(sizes.max(initial=0))
    bits = words[stream, None] >> np.maximum(sizes[stream, None] - 1 - np.arange(longest), 0) & 1
    kept = np.arange(longest) < sizes[stream, None]
    return torch.from_numpy(np.packbits(bits[kept].astype(np.uint8)))


def huffman_decode(code: UInt8[Tensor, " bytes"], lengths: Int[Tensor, " k"], count: int) -> Int[Tensor, " n"]:
    """Read what `huffman_encode` wrote.

    Args:
        code: The bytes.
        lengths: Of the code.
        count: How many symbols were written.

    Returns:
        The symbols, int64.

    Raises:
        ValueError: The bytes hold no such stream.

    Example:
        >>> lengths = huffman_lengths(torch.tensor([5, 2, 1]))
        >>> symbols = torch.tensor([0, 2, 0, 1, 1, 0, 0, 0])
        >>> code = huffman_encode(symbols, lengths)
        >>> len(code), bool((huffman_decode(code, lengths, 8) == symbols).all())
        (2, True)
    """
    words, sizes = _canonical(lengths), lengths.cpu().numpy()
    longest = int(sizes.max(initial=0))
    bits = np.unpackbits(code.cpu().numpy())
    window = np.zeros(len(bits), np.int64)  # the `longest` bits that begin at every place, zeros beyond the end
    padded = np.concatenate([bits, np.zeros(longest, np.uint8)]).astype(np.int64)
    for shift in range(longest):
        window = window << 1 | padded[shift : shift + len(bits)]
    used = np.flatnonzero(sizes)
    used = used[np.argsort(words[used] << (longest - sizes[used]), kind="stable")]
    starts = words[used] << (longest - sizes[used])
    at = used[np.searchsorted(starts, window, side="right") - 1] if len(used) else window
    symbol_at, step = at.tolist(), sizes[at].tolist() if len(used) else []
    found: list[int] = []
    place = 0
    for _ in range(count):
        if place >= len(symbol_at):
            raise ValueError(f"the code ends after {len(found)} of {count} symbols")
        found.append(symbol_at[place])
        place += step[place]
    if place > len(bits):
        raise ValueError(f"the code ends within the last of {count} symbols")
    return torch.tensor(found, dtype=torch.int64)


def _canonical(lengths: Tensor) -> np.ndarray:
    """The words of the canonical code: numbered by length, then by symbol."""
    sizes = lengths.cpu().numpy()
    if len(sizes) and (sizes.min() < 0 or sizes.max() > LONGEST):
        raise ValueError(f"lengths of code words are 0 to {LONGEST}, not {int(sizes.min())} to {int(sizes.max())}")
    if sum(2.0 ** -int(size) for size in sizes if size) > 1:
        raise ValueError("no code has words of these lengths")
    words = np.zeros(len(sizes), np.int64)
    word = size = 0
    for symbol in np.argsort(sizes, kind="stable"):
        if sizes[symbol]:
            word <<= int(sizes[symbol]) - size
            size = int(sizes[symbol])
            words[symbol] = word
            word += 1
    return words


def width_of(k: int) -> int:
    """Bits that number k things: ceil(log2 k), 0 for one."""
    return (k - 1).bit_length()


def pack(symbols: Int[Tensor, " n"], width: int) -> UInt8[Tensor, " bytes"]:
    """Write symbols with `width` bits each, highest bit first, padded with zeros to whole bytes.

    Args:
        symbols: 0 to 2^width - 1.
        width: 0 to 31.

    Returns:
        ceil(n width / 8) bytes, on the CPU.

    Raises:
        ValueError: A symbol that does not fit.

    Example:
        >>> pack(torch.tensor([1, 2, 3]), 2)
        tensor([108], dtype=torch.uint8)
    """
    if not 0 <= width < 32:
        raise ValueError(f"a width of 0 to 31 bits is accepted, not {width}")
    stream = symbols.cpu().numpy().astype(np.int64)
    if len(stream) and (stream.min() < 0 or stream.max() >= 1 << width):
        raise ValueError(f"symbols from {stream.min()} to {stream.max()} do not fit into {width} bits")
    bits = stream[:, None] >> np.arange(width - 1, -1, -1) & 1
    return torch.from_numpy(np.packbits(bits.astype(np.uint8)))


def unpack(code: UInt8[Tensor, " bytes"], width: int, count: int) -> Int[Tensor, " n"]:
    """Read what `pack` wrote.

    Args:
        code: The bytes.
        width: Bits a symbol.
        count: How many symbols.

    Returns:
        The symbols, int64.

    Raises:
        ValueError: Another number of bytes than these symbols take.

    Example:
        >>> unpack(torch.tensor([108], dtype=torch.uint8), 2, 3)
        tensor([1, 2, 3])
    """
    if len(code) != -(-count * width // 8):
        raise ValueError(f"{count} symbols of {width} bits are {-(-count * width // 8)} bytes, not {len(code)}")
    bits = np.unpackbits(code.cpu().numpy(), count=count * width).reshape(count, width).astype(np.int64)
    return torch.from_numpy((bits << np.arange(width - 1, -1, -1)).sum(1))
