"""Cells of tabular architecture benchmarks, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

INPUT, CONV1, CONV3, POOL, OUTPUT = range(5)
"""Operations of a NAS-Bench-101 cell."""
OPERATIONS = {
    "input": INPUT,
    "conv1x1-bn-relu": CONV1,
    "conv3x3-bn-relu": CONV3,
    "maxpool3x3": POOL,
    "output": OUTPUT,
}
EDGE_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Operations on the six edges of a NAS-Bench-201 cell."""


@dataclass(frozen=True)
class Cell:
    """A cell of the NAS-Bench-101 space: a directed graph with an operation at each vertex.

    Args:
        adjacency: Upper-triangular, of zeros and ones, a row for each vertex.
        ops: Of each vertex; the first is `INPUT`, the last `OUTPUT`.

    Raises:
        ValueError: Not upper-triangular, shapes that disagree, or unknown operations.

    Example:
        >>> Cell(((0, 1, 1), (0, 0, 1), (0, 0, 0)), (INPUT, CONV3, OUTPUT)).sequence()[:4].tolist()
        [1, 0, 1, 0]
    """

    adjacency: tuple[tuple[int, ...], ...]
    ops: tuple[int, ...]

    def __post_init__(self) -> None:
        size = len(self.ops)
        square = len(self.adjacency) == size and all(len(row) == size for row in self.adjacency)
        if size < 2 or not square:
            raise ValueError(f"a cell of {size} operations needs an adjacency of as many rows and columns")
        if any(
            self.adjacency[i][j] not in (0, 1) or (i >= j and self.adjacency[i][j])
            for i in range(size)
            for j in range(size)
        ):
            raise ValueError("the adjacency has to be of zeros and ones above the diagonal")
        inner = self.ops[1:-1]
        if self.ops[0] != INPUT or self.ops[-1] != OUTPUT or any(op not in (CONV1, CONV3, POOL) for op in inner):
            raise ValueError(f"operations are 0 (input), inner ones of 1 to 3, and 4 (output), not {self.ops}")

    def sequence(self, vertices: int = 7) -> np.ndarray:
        """For each column of the adjacency its entries, then which operation the vertex has.

        Args:
            vertices: Of the largest cell of the space.

        Returns:
            45 zeros and ones for 7 vertices.
        """
        parts = []
        for j in range(1, vertices):
            column = np.zeros(j + 4, dtype=np.int64)
            if j < len(self.ops):
                column[:j] = [self.adjacency[i][j] for i in range(j)]
                column[j + self.ops[j] - 1] = 1
            parts.append(column)
        return np.concatenate(parts)

    def matrix(self, vertices: int = 7) -> np.ndarray:
        """The rows of the adjacency but the last, padded with zeros, then the numbers of the operations.

        Args:
            vertices: Of the largest cell of the space.

        Returns:
            49 whole numbers for 7 vertices.
        """
        rows = np.zeros((vertices - 1, vertices), dtype=np.int64)
        ops = np.zeros(vertices, dtype=np.int64)
        size = len(self.ops)
        rows[: size - 1, :size] = np.asarray(self.adjacency)[: size - 1]
        ops[:size] = self.ops
        return np.concatenate([rows.flatten(), ops])

    def pruned(self) -> Cell | None:
        """Without vertices that lie on no way from the input to the output; `None` where there is no way."""
        size = len(self.ops)
        ahead, behind = {0}, {size - 1}
        for j in range(1, size):
            if any(self.adjacency[i][j] and i in ahead for i in range(j)):
                ahead.add(j)
        for i in range(size - 2, -1, -1):
            if any(self.adjacency[i][j] and j in behind for j in range(i + 1, size)):
                behind.add(i)
        kept = sorted(ahead & behind)
        if not {0, size - 1} <= set(kept):
            return None
        return self._reordered(kept)

    def canonical(self) -> Cell:
        """The same cell with its inner vertices in an order that does not depend on how it was written."""
        inner = range(1, len(self.ops) - 1)
        orders = ([0, *order, len(self.ops) - 1] for order in permutations(inner))
        fitting = (self._reordered(order) for order in orders if self._is_forward(order))
        return min(fitting, key=lambda cell: (cell.ops, cell.adjacency))

    def neighbours(self, vertices: int = 7, edges: int = 9) -> Iterator[Cell]:
        """Canonical cells that differ in one edge or one operation, or have one vertex more or less.

        Args:
            vertices: At most.
            edges: At most.

        Yields:
            Pruned cells, without repetition.
        """
        seen = {self.canonical()}
        for cell in self._edits(vertices):
            pruned = cell.pruned()
            if pruned is None or sum(map(sum, pruned.adjacency)) > edges:
                continue
            found = pruned.canonical()
            if found not in seen:
                seen.add(found)
                yield found

    def _edits(self, vertices: int) -> Iterator[Cell]:
        size = len(self.ops)
        for i, j in combinations(range(size), 2):
            yield self._with_edges((i, j))
        for position in range(1, size - 1):
            for op in {CONV1, CONV3, POOL} - {self.ops[position]}:
                yield Cell(self.adjacency, (*self.ops[:position], op, *self.ops[position + 1 :]))
        if size < vertices:  # a new vertex on a way from one vertex to a later one
            for i, j in combinations(range(size), 2):
                for op in (CONV1, CONV3, POOL):
                    yield self._grown(op, i, j)

    def _with_edges(self, *flipped: tuple[int, int]) -> Cell:
        rows = [list(row) for row in self.adjacency]
        for i, j in flipped:
            rows[i][j] = 1 - rows[i][j]
        return Cell(tuple(map(tuple, rows)), self.ops)

    def _grown(self, op: int, before: int, after: int) -> Cell:
        old = np.asarray(self.adjacency)
        place = before + 1
        wide = np.insert(np.insert(old, place, 0, axis=0), place, 0, axis=1)
        wide[before, place] = wide[place, after + 1] = 1
        ops = (*self.ops[:place], op, *self.ops[place:])
        return Cell(tuple(map(tuple, wide.tolist())), ops)

    def _is_forward(self, order: Sequence[int]) -> bool:
        return all(not self.adjacency[order[j]][order[i]] for i, j in combinations(range(len(order)), 2))

    def _reordered(self, order: Sequence[int]) -> Cell:
        rows = tuple(tuple(self.adjacency[i][j] for j in order) for i in order)
        return Cell(rows, tuple(self.ops[i] for i in order))


def one_hot(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Choices as zeros and ones.

    Args:
        codes: (n, positions), each from 0 to the size of its position.
        sizes: Number of choices at each position.

    Returns:
        (n, sum of sizes) float64.

    Raises:
        ValueError: A code outside its position's choices.

    Example:
        >>> one_hot(np.array([[2, 0]]), (3, 2)).tolist()
        [[0.0, 0.0, 1.0, 1.0, 0.0]]
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[1] != len(sizes):
        raise ValueError(f"codes have the shape {codes.shape}; (n, {len(sizes)}) is accepted")
    if (codes < 0).any() or (codes >= np.asarray(sizes)).any():
        raise ValueError(f"a code lies outside its choices, of which there are {tuple(sizes)}")
    return np.concatenate([np.eye(size)[codes[:, position]] for position, size in enumerate(sizes)], axis=1)


def edge_codes(text: str) -> tuple[int, ...]:
    """Operations of a NAS-Bench-201 cell from its text.

    Args:
        text: Such as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`.

    Returns:
        Six numbers, positions in `EDGE_OPERATIONS`.

    Raises:
        ValueError: Another text.

    Example:
        >>> edge_codes("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
        (0, 0, 0, 1, 0, 4)
    """
    names = [part.split("~")[0] for node in text.split("+") for part in node.strip("|").split("|")]
    if len(names) != 6 or any(name not in EDGE_OPERATIONS for name in names):
        raise ValueError(f"{text!r} is no cell of NAS-Bench-201: six of {', '.join(EDGE_OPERATIONS)} are accepted")
    return tuple(EDGE_OPERATIONS.index(name) for name in names)
