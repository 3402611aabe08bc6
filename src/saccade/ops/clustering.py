"""k-means: exact Lloyd iterations with bounds, greedy k-means++, bounded memory, the same draws on every device.

A pass over all rows is one product with the centroids, a block of rows at a time. Most rows need none: with `u` the
distance to the own centroid after the last step and `l` a lower bound of the distance to any other, a row whose `u`
plus what its centroid moved is below `l` less what the others moved at most, or below half the way from its centroid to
the next one, keeps its label (Hamerly's and Elkan's bounds). The labels are those of plain Lloyd.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

SAMPLE = 8_192
"""Many more rows than this: the start is sought on so many of them, and finished on all."""
NARROW = 16
"""Up to so many columns, sums run column by column."""


@dataclass(frozen=True)
class KMeans:
    """What k-means found.

    Attributes:
        centroids: (k, d). Where there are fewer than k distinct rows, some stand twice or belong to no row.
        labels: (n,), the nearest centroid of every row.
        inertia: Sum of squared distances to it.
        iterations: Lloyd iterations over all rows, of the start that was kept.
    """

    centroids: Float[Tensor, "k d"]
    labels: Int[Tensor, " n"]
    inertia: float
    iterations: int


def kmeans(
    x: Float[Tensor, "n d"],
    k: int,
    init: Float[Tensor, "k d"] | str = "k-means++",
    *,
    iters: int = 100,
    n_init: int = 10,
    seed: int = 0,
    tol: float = 1e-4,
) -> KMeans:
    """Cluster rows, keeping the best of several starts.

    Each start is greedy k-means++ (2 + log k candidates a step; the one that lowers the sum most is taken). Lloyd
    iterations end when no centroid's squared shift exceeds `tol` times the mean variance of the columns, when no label
    changes, or after `iters`. A cluster that runs empty is put at the row farthest from its centroid. With more
    than 16,384 rows and 128 k, a start is first brought to rest on a random sample, and finished on all rows.

    Args:
        x: Rows, finite.
        k: Clusters, 1 to n. With k = n every row is its own centroid.
        init: `k-means++`, or (k, d) centroids to start from; then there is one start and no sample.
        iters: The most Lloyd iterations.
        n_init: Starts.
        seed: Of all draws. They are made on the CPU, so that every device sees the same.
        tol: See above; 0: until no label changes.

    Returns:
        Centroids, labels and inertia of the best start.

    Raises:
        ValueError: k outside 1 to n, no starts, no iterations, a negative tolerance, an unknown `init` or one of
            another shape, or rows that are not finite.

    Source:
        arXiv:1806.09228, section 3.2 (clustering with k-means++); bounds: Hamerly, SDM 2010.

    Example:
        >>> found = kmeans(torch.tensor([[0.0], [0.2], [5.0], [5.2]]), 2)
        >>> found.labels[0] == found.labels[1], found.labels[2] == found.labels[3], round(found.inertia, 3)
        (tensor(True), tensor(True), 0.04)
    """
    rows, width = x.shape
    if not 1 <= k <= rows:
        raise ValueError(f"k-means of {rows} rows into {k} clusters: the number of clusters has to be 1 to {rows}")
    if n_init < 1 or iters < 1 or tol < 0:
        raise ValueError(f"n_init and iters have to be at least 1 and tol at least 0, not {n_init}, {iters} and {tol}")
    if isinstance(init, str) and init != "k-means++":
        raise ValueError(f"init is 'k-means++' or a tensor of centroids, not {init!r}")
    if isinstance(init, Tensor) and tuple(init.shape) != (k, width):
        raise ValueError(f"init has shape {tuple(init.shape)}, wanted {(k, width)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("k-means of rows that are not finite: NaN or infinity was found")
    x = x.detach()
    if k == rows and isinstance(init, str):
        return KMeans(x.clone(), torch.arange(rows, device=x.device), 0.0, 0)
    with torch.autocast(x.device.type, enabled=False):
        work = x if x.dtype in (torch.float32, torch.float64) else x.float()
        middle = work.mean(0)  # distances are differences of large numbers where all rows lie far from 0
        work = work - middle
        least = tol * float(work.double().var(0, correction=0).mean())
        generator = torch.Generator().manual_seed(seed)
        starts = [init.to(work) - middle] if isinstance(init, Tensor) else [None] * n_init
        found = (
            _lloyd(work, _start(work, k, iters, least, generator) if start is None else start, iters, least)
            for start in starts
        )
        best = min(found, key=lambda result: result.inertia)
        return replace(best, centroids=(best.centroids + middle).to(x.dtype))


def assign(x: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """The nearest centroid of every row, in bounded memory.

    Args:
        x: Rows.
        centroids: At least one.

    Returns:
        Indices of centroids; of equally near ones, any.

    Example:
        >>> assign(torch.tensor([[0.0], [4.0]]), torch.tensor([[5.0], [1.0]]))
        tensor([1, 0])
    """
    if x.shape[1:] != centroids.shape[1:] or not len(centroids):
        raise ValueError(f"rows of {tuple(x.shape[1:])} against centroids of shape {tuple(centroids.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        middle = centroids.mean(0)
        rows = x.detach() - middle
        return _nearest(rows, rows.square().sum(1), centroids.detach() - middle)[0]


def squared_errors(
    x: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"], labels: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Squared distance of every row to its centroid, by differences."""
    if x.shape[1] <= NARROW:  # column by column: sums over a few neighbours in memory are slow
        total = x.new_zeros(len(x))
        for own, theirs in zip(x.unbind(1), centroids.unbind(1), strict=True):
            difference = own - theirs.index_select(0, labels)
            total.addcmul_(difference, difference)
        return total
    parts = _blocks(len(x), x.shape[1], x.device)
    return torch.cat([(x[part] - centroids.index_select(0, labels[part])).square().sum(1) for part in parts])


def _distances(x: Tensor, centroids: Tensor, labels: Tensor) -> Tensor:
    """Distance of every row to its centroid, from above (float64)."""
    rounding = (x.shape[1] + 4) * torch.finfo(x.dtype).eps
    return squared_errors(x, centroids, labels).double().sqrt_().mul_(1 + rounding)


def _start(x: Tensor, k: int, iters: int, least: float, generator: torch.Generator) -> Tensor:
    """Greedy k-means++; with many rows on a sample, and brought to rest there."""
    size = max(SAMPLE, 64 * k)
    if len(x) <= 2 * size:
        return _plus_plus(x, k, generator)
    chosen = torch.randint(len(x), (size,), generator=generator).to(x.device)
    sample = x[chosen]
    return _lloyd(sample, _plus_plus(sample, k, generator), iters, least).centroids


def _plus_plus(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """K rows: the first uniform, each next the best of some drawn with probability ~ squared distance to the chosen."""
    trials = 2 + int(math.log(k))
    lengths = x.square().sum(1)
    first = int(torch.randint(len(x), (1,), generator=generator))
    chosen = [torch.tensor(first, device=x.device)]
    nearest = (lengths + lengths[first] - 2 * (x @ x[first])).clamp_(min=0)
    nearest[first] = 0
    draws = torch.rand(k - 1, trials, dtype=torch.float64, generator=generator).to(x.device)
    for draw in draws:
        upto = nearest.double().cumsum(0)
        candidates = torch.searchsorted(upto, draw * upto[-1], right=True).clamp_(max=len(x) - 1)
        distances = torch.addmm(lengths[candidates], x, x[candidates].T, alpha=-2).add_(lengths[:, None]).clamp_(min=0)
        distances = torch.minimum(distances, nearest[:, None])
        best = distances.sum(0, dtype=torch.float64).argmin()
        nearest = distances.T[best].clone()
        nearest[candidates[best]] = 0
        chosen.append(candidates[best])
    return x[torch.stack(chosen)]


def _lloyd(x: Tensor, centroids: Tensor, iters: int, least: float) -> KMeans:
    """Lloyd's iterations from these centroids."""
    if x.shape[1] <= NARROW:
        x = x.T.contiguous().T  # the columns lie in one piece each
    lengths = x.square().sum(1)
    labels, lower = _nearest(x, lengths, centroids)
    upper = _distances(x, centroids, labels)
    wide = x.double()
    done = 0
    for _ in range(iters):
        done += 1
        moved = _means(wide, labels, centroids, upper, lower)
        shift = (moved - centroids.double()).norm(dim=1)
        centroids = moved.to(x.dtype)
        half, near, radius = _surroundings(centroids, shift)
        upper += shift.index_select(0, labels)
        lower -= near.index_select(0, labels)
        torch.minimum(lower, radius.index_select(0, labels).sub_(upper), out=lower)
        changed = _relabel(x, lengths, centroids, labels, upper, lower, half)
        if not changed or float(shift.max()) ** 2 <= least:
            break
    inertia = float(squared_errors(x, centroids, labels).sum(dtype=torch.float64))
    return KMeans(centroids, labels, inertia, done)


def _relabel(
    x: Tensor, lengths: Tensor, centroids: Tensor, labels: Tensor, upper: Tensor, lower: Tensor, half: Tensor
) -> bool:
    """Label anew those rows that no bound holds back, in place; whether a label changed."""
    bound = torch.maximum(lower, half.index_select(0, labels))
    rows = (upper > bound).nonzero().squeeze(1)
    if not len(rows):
        return False
    subset = _rows(x, rows)
    exact = _distances(subset, centroids, labels.index_select(0, rows))
    upper.index_copy_(0, rows, exact)
    still = (exact > bound.index_select(0, rows)).nonzero().squeeze(1)
    if not len(still):
        return False
    rows, subset = rows.index_select(0, still), _rows(subset, still)
    found, below = _nearest(subset, lengths.index_select(0, rows), centroids)
    changed = bool((found != labels.index_select(0, rows)).any())
    labels.index_copy_(0, rows, found)
    lower.index_copy_(0, rows, below)
    upper.index_copy_(0, rows, _distances(subset, centroids, found))
    return changed


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """Some of the rows, in the layout of x."""
    return x.T.index_select(1, rows).T if x.shape[1] <= NARROW else x.index_select(0, rows)


def _nearest(x: Tensor, lengths: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Label of the nearest centroid, and a lower bound of the distance to the next (float64)."""
    labels = torch.empty(len(x), dtype=torch.long, device=x.device)
    lower = torch.full((len(x),), math.inf, dtype=x.dtype, device=x.device)
    offsets = centroids.square().sum(1)
    factors = -2 * centroids.T.contiguous()
    for part in _blocks(len(x), len(centroids), x.device):
        scores = torch.addmm(offsets, x[part], factors)
        labels[part] = found = _argmin(scores)
        if len(centroids) > 1:
            torch.amin(scores.scatter_(1, found[:, None], math.inf), 1, out=lower[part])
    rounding = 8 * torch.finfo(x.dtype).eps * math.sqrt(x.shape[1])
    lower += lengths - rounding * (lengths + offsets.max())
    return labels, lower.double().clamp_(min=0).sqrt_()


def _argmin(scores: Tensor) -> Tensor:
    """Along the rows; numpy's is twice as fast as torch's on a CPU."""
    return scores.argmin(1) if scores.device.type != "cpu" else torch.from_numpy(scores.numpy().argmin(1))


def _surroundings(centroids: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each centroid: half the way to the next one, the most that one near it moved, and how far those not near are.

    A row at distance u from its own centroid is at least radius - u from all that are not near it.
    """
    k = len(centroids)
    count = min(k - 1, max(16, k // 8))
    half, near, radius = (torch.full((k,), value, dtype=torch.float64, device=shift.device) for value in _NOTHING)
    if not count:
        return half, near, radius
    wide = centroids.double()
    for part in _blocks(k, k, shift.device):
        distances = torch.cdist(wide[part], wide, compute_mode="donot_use_mm_for_euclid_dist")
        distances.diagonal(part.start).fill_(math.inf)
        closest, which = distances.topk(min(count + 1, k - 1), dim=1, largest=False)
        half[part] = closest[:, 0] / 2
        near[part] = shift[which[:, :count]].amax(1)
        if count < k - 1:
            radius[part] = closest[:, -1]
    return half, near, radius


_NOTHING = (math.inf, 0.0, math.inf)


def _means(x: Tensor, labels: Tensor, centroids: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """Means of the clusters (float64); an empty one takes the row that is farthest from its centroid, in place."""
    k = len(centroids)
    counts = torch.bincount(labels, minlength=k)
    empty = (counts == 0).nonzero().squeeze(1)
    if len(empty):
        upper.copy_(_distances(x, centroids.double(), labels))
        for cluster in empty.tolist():
            alone = counts[labels] == 1  # a row that is a cluster by itself stays one
            row = int(upper.masked_fill(alone, -1).argmax())
            if float(upper[row]) <= 0:
                break  # fewer distinct rows than clusters
            counts[labels[row]] -= 1
            counts[cluster] += 1
            labels[row] = cluster
            upper[row] = lower[row] = 0
    return torch.where(counts[:, None] > 0, _sums(x, labels, k) / counts.clamp(min=1)[:, None], centroids.double())


def _sums(x: Tensor, labels: Tensor, k: int) -> Tensor:
    """Sums of the rows of each cluster, (k, d), in an order that does not depend on chance."""
    if x.device.type == "cpu":
        if x.shape[1] <= NARROW:
            return torch.stack([torch.bincount(labels, weights=column, minlength=k) for column in x.unbind(1)], dim=1)
        return x.new_zeros(k, x.shape[1]).index_add_(0, labels, x)
    total = x.new_zeros(k, x.shape[1])  # additions of other devices' index_add_ come in any order
    for part in _blocks(len(x), k, x.device):
        total += torch.nn.functional.one_hot(labels[part], k).to(x).T @ x[part]
    return total


def _blocks(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Blocks of rows such that (rows, width) numbers stay in the cache, or on a GPU within 128 MB."""
    size = max(1, (2**18 if device.type == "cpu" else 2**24) // max(width, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
