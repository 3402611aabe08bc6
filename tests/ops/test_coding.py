"""Codes read back what was written, in as many bits as they promise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.ops.coding import (
    entropy_bits,
    huffman_decode,
    huffman_encode,
    huffman_lengths,
    pack,
    unpack,
    width_of,
)

STREAMS = st.lists(st.integers(0, 40), min_size=1, max_size=300)


@given(STREAMS)
def test_what_is_written_is_read(stream: list[int]) -> None:
    symbols = torch.tensor(stream)
    counts = torch.bincount(symbols, minlength=41)
    lengths = huffman_lengths(counts)
    code = huffman_encode(symbols, lengths)
    assert torch.equal(huffman_decode(code, lengths, len(stream)), symbols)
    assert len(code) == math.ceil(int((lengths * counts).sum()) / 8)
    width = width_of(41)
    assert torch.equal(unpack(pack(symbols, width), width, len(stream)), symbols)
    assert len(pack(symbols, width)) == math.ceil(6 * len(stream) / 8)


@given(STREAMS)
def test_huffman_is_within_a_bit_of_the_entropy(stream: list[int]) -> None:
    counts = torch.bincount(torch.tensor(stream))
    mean = float((huffman_lengths(counts) * counts).sum() / counts.sum())
    slow = -sum(c / len(stream) * math.log2(c / len(stream)) for c in counts.tolist() if c)
    assert entropy_bits(counts) == pytest.approx(slow, abs=1e-12)
    assert slow - 1e-9 <= mean <= slow + 1
    assert float((0.5 ** huffman_lengths(counts).double())[counts > 0].sum()) <= 1


def test_lengths_of_a_textbook_code() -> None:
    assert huffman_lengths(torch.tensor([45, 13, 12, 16, 9, 5])).tolist() == [1, 3, 3, 3, 4, 4]


@pytest.mark.parametrize(("things", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9)])
def test_width(things: int, bits: int) -> None:
    assert width_of(things) == bits


def test_one_symbol_needs_no_fixed_bits() -> None:
    assert len(pack(torch.zeros(100, dtype=torch.int64), 0)) == 0
    assert torch.equal(unpack(torch.zeros(0, dtype=torch.uint8), 0, 100), torch.zeros(100, dtype=torch.int64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entropy_bits(torch.tensor([0, 0])), "at least one of them positive"),
        (lambda: huffman_lengths(torch.tensor([-1, 3])), "not negative"),
        (lambda: huffman_encode(torch.tensor([2]), torch.tensor([1, 1, 0])), "no word"),
        (lambda: huffman_encode(torch.tensor([0]), torch.tensor([1, 1, 1])), "no code has words of these lengths"),
        (lambda: huffman_encode(torch.tensor([0]), torch.tensor([40, 1])), "lengths of code words are 0 to 32"),
        (lambda: huffman_decode(torch.zeros(1, dtype=torch.uint8), torch.tensor([1, 1]), 9), "ends after 8 of 9"),
        (lambda: pack(torch.tensor([4]), 2), "do not fit into 2 bits"),
        (lambda: pack(torch.tensor([4]), 40), "width of 0 to 31"),
        (lambda: unpack(torch.zeros(3, dtype=torch.uint8), 2, 4), "4 symbols of 2 bits are 1 bytes, not 3"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
