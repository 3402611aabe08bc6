"""Exact nearest neighbours on the CPU from a distance matrix that is never written out."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.metric.ordering import smallest_of_rows

TILE = 512
"""Rows and columns of a tile of the matrix: 1 MB in float32, which stays in the cache."""


def tiles_pay(query: Tensor, reference: Tensor, k: int) -> bool:
    """Whether [`nearest_in_tiles`][saccade.metric.tiles.nearest_in_tiles] is faster than whole rows of the matrix."""
    on_cpu = query.device.type == "cpu" and query.dtype == reference.dtype == torch.float32
    return on_cpu and len(query) >= TILE and len(reference) >= 8 * k * TILE


def nearest_in_tiles(
    query: Float[Tensor, "b d"], reference: Float[Tensor, "m d"], k: int, own: Int[Tensor, " b"] | None = None
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k nearest references of each query, by squared Euclidean distance.

    The k nearest lie in the k tiles of a row with the smallest minima. So a first pass notes the minimum of each row of
    each tile, and a second computes the distances of those tiles again. Where the references are the queries, the
    first pass computes one half of the matrix, and takes the minima of the other half from the columns.

    Args:
        query: (b, d).
        reference: (m, d); the same tensor as `query` halves the work, if each query leaves out itself or nothing.
        k: At most the number of references that can be found.
        own: For each query the reference to leave out.

    Returns:
        Squared distances, ascending, and indices; ties are decided by index.

    Example:
        >>> points = torch.tensor([[0.0], [2.0], [3.0]])
        >>> nearest_in_tiles(points, points, 1, own=torch.arange(3))
        (tensor([[4.],
                [1.],
                [1.]]), tensor([[1],
                [2],
                [1]]))
    """
    alike = query.data_ptr() == reference.data_ptr() and query.shape == reference.shape
    alike = alike and (own is None or torch.equal(own, torch.arange(len(own))))
    # |q - r|^2 is one product of (-2 q, |q|^2, 1) and (r, 1, |r|^2)
    left = torch.cat([-2 * query, *_norm_and_one(query)], dim=1)
    right = torch.cat([reference, *reversed(_norm_and_one(reference))], dim=1)
    starts = range(0, len(reference), TILE)
    minima = query.new_empty(len(query), len(starts))
    with torch.autocast("cpu", enabled=False):
        for top in range(0, len(query), TILE):
            rows = slice(top, top + TILE)
            for number, start in enumerate(starts):
                if alike and start < top:
                    continue
                tile = _tile(left[rows], right, start, None if own is None else own[rows])
                minima[rows, number] = tile.amin(dim=1)
                if alike and start > top:
                    minima[start : start + TILE, top // TILE] = tile.amin(dim=0)
        tiles = min(k, len(starts))
        chosen = smallest_of_rows(minima, tiles)[1].sort(dim=1).values
        width = min(k, TILE)
        values = query.new_full((len(query), tiles, width), torch.inf)
        columns = torch.zeros(len(query), tiles, width, dtype=torch.long)
        for number, start in enumerate(starts):
            asking, places = torch.where(chosen == number)
            for part, place in zip(asking.split(TILE), places.split(TILE), strict=True):
                tile = _tile(left[part], right, start, None if own is None else own[part])
                found, within = smallest_of_rows(tile, min(width, tile.shape[1]))
                values[part, place, : found.shape[1]] = found
                columns[part, place, : found.shape[1]] = within + start
    nearest, order = smallest_of_rows(values.flatten(1), k)
    return nearest.clamp_(min=0), columns.flatten(1).gather(1, order)


def _norm_and_one(x: Tensor) -> list[Tensor]:
    norms = x.square().sum(dim=1, keepdim=True)
    return [norms, torch.ones_like(norms)]


def _tile(left: Tensor, right: Tensor, start: int, own: Tensor | None) -> Tensor:
    """Squared distances to the references from a start on, infinite to a query's own."""
    tile = left @ right[start : start + TILE].T
    if own is not None:
        rows = ((own >= start) & (own < start + tile.shape[1])).nonzero().squeeze(1)
        if len(rows):
            tile[rows, own[rows] - start] = torch.inf
    return tile
