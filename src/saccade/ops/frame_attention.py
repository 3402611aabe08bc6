"""Attention of every query to every frame on its own, exact and approximated.

Plain attention spreads one softmax over all tokens of a clip. Here each query has a softmax for each key frame, and so
gives one pooled token a frame: `out[q, f] = sum_p softmax_p(q . k[f, p]) v[f, p]`. That is the first half of trajectory
attention (arXiv:2106.05392). The exact form costs `n * m * d` products;
[`orthoformer_attention`][saccade.ops.frame_attention.orthoformer_attention],
[`nystrom_attention`][saccade.ops.frame_attention.nystrom_attention] and
[`performer_attention`][saccade.ops.frame_attention.performer_attention] cost `n * r * d` with a few landmarks or random
features in the place of all keys.

All take tokens frame-major, index `f * p + cell`, without a class token; the leading axis holds clips and heads.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from saccade.ops.features import orthogonal_gaussian, positive_features


def frame_attention(
    q: Float[Tensor, "*b n d"],
    k: Float[Tensor, "*b m d"],
    v: Float[Tensor, "*b m e"],
    num_frames: int,
    dropout: float = 0.0,
) -> Float[Tensor, "*b n t e"]:
    """Exact attention of all queries to each frame; no tensor of queries by keys is made.

    Args:
        q: Queries, any number of them.
        k: Keys of all frames, frame-major.
        v: Values of all frames.
        num_frames: Frames in a clip.
        dropout: Share of the attention that is dropped.

    Returns:
        One pooled value for each query and frame; a view whose frames lie outside the queries in memory.

    Raises:
        ValueError: Keys that are no multiple of `num_frames`, or a rank other than 3 or 4.

    Note:
        Source: arXiv:2106.05392, equation 3; frames are folded into the batch, so that fused kernels apply.

    Example:
        >>> q, k, v = torch.randn(3, 2, 8, 16).unbind(0)  # two heads, four frames of two cells
        >>> frame_attention(q, k, v, num_frames=4).shape
        torch.Size([2, 8, 4, 16])
    """
    check_frames(k, num_frames)
    if q.ndim not in (3, 4):
        raise ValueError(f"queries have to be (b, n, d) or (b, heads, n, d), not {tuple(q.shape)}")
    if q.ndim == 3:
        return frame_attention(q[:, None], k[:, None], v[:, None], num_frames, dropout)[:, 0]
    batch = q.shape[0]
    queries = q.unsqueeze(1).expand(-1, num_frames, -1, -1, -1).flatten(0, 1)
    pooled = F.scaled_dot_product_attention(
        queries, _fold_frames(k, num_frames), _fold_frames(v, num_frames), dropout_p=dropout
    )
    return pooled.unflatten(0, (batch, num_frames)).permute(0, 2, 3, 1, 4)


def _fold_frames(x: Tensor, num_frames: int) -> Tensor:
    """Fold the frames of tokens (b, h, m, d) into the batch, clip by clip: (b*t, h, p, d)."""
    return x.unflatten(2, (num_frames, -1)).transpose(1, 2).flatten(0, 1)


def orthogonal_prototypes(
    q: Float[Tensor, "b n d"],
    num_landmarks: int,
    first_index: int | Int[Tensor, " b"] | None = None,
    generator: Generator | None = None,
) -> Int[Tensor, "b r"]:
    """Choose tokens that are as orthogonal to each other as possible, one after the other.

    Each step takes the token whose largest absolute cosine with those already chosen is smallest; among equal ones the
    first. Nothing flows back through the choice.

    Args:
        q: Candidates.
        num_landmarks: How many to choose.
        first_index: The first one, one for all or one for each row; where `None` it is drawn from `generator`, and
            without a generator it is 0, so that the choice is the same on each call.
        generator: Draws the first one; on the device of `q`.

    Returns:
        Indices in order of choice; all different.

    Raises:
        ValueError: Fewer candidates than `num_landmarks`, fewer than one landmark, or a first index that is not there.

    Note:
        Source: arXiv:2106.05392, algorithm 2.

    Example:
        >>> q = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 2.0]]])
        >>> orthogonal_prototypes(q, 2)
        tensor([[0, 2]])
    """
    batch, candidates = q.shape[0], q.shape[1]
    check_landmarks(num_landmarks, candidates)
    with torch.no_grad():
        unit = F.normalize(q.detach(), dim=-1)
        if isinstance(first_index, Tensor):
            chosen = first_index.to(q.device)
            if chosen.shape != (batch,):
                raise ValueError(f"first_index needs one index for each of {batch} rows, not {tuple(chosen.shape)}")
        elif first_index is not None:
            chosen = torch.full((batch,), first_index, device=q.device)
            if not 0 <= first_index < candidates:
                raise ValueError(f"first_index is {first_index}; the candidates are 0 to {candidates - 1}")
        elif generator is not None:
            chosen = torch.randint(candidates, (batch,), generator=generator, device=q.device)
        else:
            chosen = torch.zeros(batch, dtype=torch.int64, device=q.device)
        indices = [chosen]
        likeness = torch.zeros_like(unit[..., 0])
        for _ in range(num_landmarks - 1):
            place = chosen[:, None]
            prototype = unit.gather(1, place[..., None].expand(-1, -1, unit.shape[-1]))
            cosine = torch.matmul(unit, prototype.mT)[..., 0].abs()
            likeness = torch.maximum(likeness, cosine).scatter(1, place, 10.0)  # above any cosine: not again
            chosen = likeness.argmin(1)
            indices.append(chosen)
        return torch.stack(indices, dim=1)


def orthoformer_attention(
    q: Float[Tensor, "b n d"],
    k: Float[Tensor, "b n d"],
    v: Float[Tensor, "b n e"],
    num_frames: int,
    num_landmarks: int = 128,
    *,
    shared: bool = True,
    first_index: Int[Tensor, " b"] | Int[Tensor, "b t"] | None = None,
    generator: Generator | None = None,
    candidates: Literal["queries", "queries_and_keys"] = "queries",
    share: float = 1.0,
    consistent: bool = False,
) -> Float[Tensor, "b n t e"]:
    """Attention of all queries to each frame through a few prototypes: from query to prototype, from there to keys.

    Args:
        q: Queries.
        k: Keys, frame-major like the queries.
        v: Values.
        num_frames: Frames in a clip.
        num_landmarks: Prototypes of the clip, or with `shared=False` of each frame.
        shared: One set of prototypes for the clip (recommended); else one for each frame.
        first_index: First prototype of each row, or with `shared=False` of each row and frame, counted in the frame.
        generator: Draws the first prototypes and the share of candidates; without it the first prototype is token 0.
        candidates: `queries`, as in the authors' code, or `queries_and_keys`, as in the paper's text.
        share: Share of the candidates that is looked at, drawn with replacement; takes a generator where below 1.
        consistent: With `shared=False`, take the query frame's prototypes in both factors; the authors' code takes
            the key frame's in the first, and sums over prototypes of two sets by their rank.

    Returns:
        Pooled values for each query and frame.

    Raises:
        ValueError: More prototypes than candidates, an unknown kind of candidates, or a share outside (0, 1].

    Note:
        Source: arXiv:2106.05392, section 3.3 and algorithm 1. Queries and keys are scaled by `d ** -0.25` each.

    Example:
        >>> q, k, v = torch.randn(3, 2, 12, 16).unbind(0)
        >>> orthoformer_attention(q, k, v, num_frames=3, num_landmarks=6).shape
        torch.Size([2, 12, 3, 16])
    """
    check_frames(k, num_frames)
    if candidates not in ("queries", "queries_and_keys"):
        raise ValueError(f"candidates are 'queries' or 'queries_and_keys', not {candidates!r}")
    if not 0 < share <= 1:
        raise ValueError(f"share has to be above 0 and at most 1, not {share}")
    scale = q.shape[-1] ** -0.25
    q, k = q * scale, k * scale
    key, value = (x.unflatten(1, (num_frames, -1)) for x in (k, v))  # b t p d
    if shared:
        pool = q if candidates == "queries" else torch.cat([q, k], dim=1)
        prototypes = _prototypes(pool, num_landmarks, first_index, generator, share)
        near = torch.matmul(q, prototypes.mT).softmax(-1)  # b n r
        far = torch.matmul(prototypes[:, None], key.mT).softmax(-1)  # b t r p
        return torch.matmul(near[:, None], torch.matmul(far, value)).transpose(1, 2)
    query = q.unflatten(1, (num_frames, -1))
    pool = query if candidates == "queries" else torch.cat([query, key], dim=2)
    first = None if first_index is None else first_index.flatten()
    sets = _prototypes(pool.flatten(0, 1), num_landmarks, first, generator, share).unflatten(0, (-1, num_frames))
    far = torch.einsum("bgrd,bfpd->bgfrp", sets, key).softmax(-1)
    pooled = torch.einsum("bgfrp,bfpe->bgfre", far, value)
    if consistent:
        near = torch.matmul(query, sets.mT).softmax(-1)
        out = torch.einsum("bgpr,bgfre->bgpfe", near, pooled)
    else:
        near = torch.einsum("bgpd,bfrd->bgpfr", query, sets).softmax(-1)
        out = torch.einsum("bgpfr,bgfre->bgpfe", near, pooled)
    return out.flatten(1, 2)


def nystrom_attention(
    q: Float[Tensor, "b n d"],
    k: Float[Tensor, "b n d"],
    v: Float[Tensor, "b n e"],
    num_frames: int,
    num_landmarks: int = 128,
    *,
    spatial: bool = False,
    iterations: int = 6,
) -> Float[Tensor, "b n t e"]:
    """Attention of all queries to each frame through landmarks that are means of neighbouring tokens.

    Args:
        q: Queries.
        k: Keys, frame-major like the queries.
        v: Values.
        num_frames: Frames in a clip.
        num_landmarks: Segments whose means are the landmarks; nothing flows back through them.
        spatial: Order the tokens cell by cell before cutting them, so that a segment spans time; else frame by frame.
        iterations: Steps of the iterative inverse.

    Returns:
        Pooled values for each query and frame.

    Raises:
        ValueError: More landmarks than tokens, or fewer than one.

    Note:
        Sources: arXiv:2106.05392, section 4.3 (the comparison); arXiv:2102.03902 (Nystromformer).

    Example:
        >>> q, k, v = torch.randn(3, 2, 12, 16).unbind(0)
        >>> nystrom_attention(q, k, v, num_frames=3, num_landmarks=4).shape
        torch.Size([2, 12, 3, 16])
    """
    check_frames(k, num_frames)
    check_landmarks(num_landmarks, q.shape[1])
    q = q * q.shape[-1] ** -0.5
    query_marks, key_marks = (_segment_means(x.detach(), num_frames, num_landmarks, spatial) for x in (q, k))
    to_marks = torch.matmul(q, key_marks.mT).softmax(-1)  # b n r
    between = torch.matmul(query_marks, key_marks.mT).softmax(-1)  # b r r
    key, value = (x.unflatten(1, (num_frames, -1)) for x in (k, v))
    from_marks = torch.matmul(query_marks[:, None], key.mT).softmax(-1)  # b t r p
    weights = torch.matmul(to_marks, iterative_inverse(between, iterations))
    return torch.matmul(weights[:, None], torch.matmul(from_marks, value)).transpose(1, 2)


def iterative_inverse(matrix: Float[Tensor, "b r r"], iterations: int = 6) -> Float[Tensor, "b r r"]:
    """An approximate inverse of matrices with positive entries, by products alone.

    Args:
        matrix: Such as a softmax between landmarks.
        iterations: Steps; each cubes the error once it is below one.

    Returns:
        The approximate inverse.

    Note:
        Source: arXiv:2102.03902, equation 12.

    Example:
        >>> matrix = torch.tensor([[[0.8, 0.2], [0.3, 0.7]]])
        >>> (matrix @ iterative_inverse(matrix)).round(decimals=3)
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    z = matrix.mT / matrix.sum(-2).amax(-1)[:, None, None]
    for _ in range(iterations):
        product = torch.matmul(matrix, z)
        inner = 15 * eye - torch.matmul(product, 7 * eye - product)
        z = 0.25 * torch.matmul(z, 13 * eye - torch.matmul(product, inner))
    return z


def performer_attention(
    q: Float[Tensor, "b n d"],
    k: Float[Tensor, "b m d"],
    v: Float[Tensor, "b m e"],
    num_frames: int,
    projection: Float[Tensor, "r d"] | None = None,
    *,
    num_features: int = 256,
    generator: Generator | None = None,
) -> Float[Tensor, "b n t e"]:
    """Attention of all queries to each frame through positive random features.

    Args:
        q: Queries.
        k: Keys of all frames, frame-major.
        v: Values.
        num_frames: Frames in a clip.
        projection: Directions of the features; drawn where `None`.
        num_features: How many are drawn.
        generator: Draws them, on the CPU; torch's own where `None`.

    Returns:
        Pooled values for each query and frame; for each of them the weights over the frame's cells sum to 1.

    Raises:
        ValueError: Keys that are no multiple of `num_frames`.

    Note:
        Sources: arXiv:2009.14794 (Performer); per frame as in arXiv:2106.05392, section 4.3.

    Example:
        >>> q, k, v = torch.randn(3, 2, 12, 16).unbind(0)
        >>> performer_attention(q, k, v, num_frames=3).shape
        torch.Size([2, 12, 3, 16])
    """
    check_frames(k, num_frames)
    if projection is None:
        projection = orthogonal_gaussian(num_features, q.shape[-1], generator)
    projection = projection.to(q)
    query = positive_features(q, projection, "query")
    key = positive_features(k, projection, "key").unflatten(1, (num_frames, -1))  # b t p r
    value = v.unflatten(1, (num_frames, -1))
    pooled = torch.matmul(query[:, None], torch.matmul(key.mT, value))  # b t n e
    weight = torch.matmul(query[:, None], key.sum(2)[..., None])
    return (pooled / weight).transpose(1, 2)


def check_frames(tokens: Tensor, num_frames: int) -> None:
    """Raise unless tokens (..., n, d), without a class token, are whole frames.

    Args:
        tokens: Of all frames.
        num_frames: Frames in a clip.

    Raises:
        ValueError: No frames, or tokens that are no multiple of them.

    Example:
        >>> check_frames(torch.zeros(1, 7, 4), num_frames=2)
        Traceback (most recent call last):
        ValueError: 7 tokens are no multiple of num_frames=2
    """
    if num_frames < 1:
        raise ValueError(f"num_frames has to be at least 1, not {num_frames}")
    if tokens.shape[-2] % num_frames:
        raise ValueError(f"{tokens.shape[-2]} tokens are no multiple of num_frames={num_frames}")


def check_landmarks(num_landmarks: int, candidates: int) -> None:
    """Raise unless so many landmarks can be taken from so many candidates.

    Args:
        num_landmarks: Wanted.
        candidates: There.

    Raises:
        ValueError: Fewer than one, or more than there are.

    Example:
        >>> check_landmarks(3, candidates=2)
        Traceback (most recent call last):
        ValueError: num_landmarks has to be from 1 to 2, the number of candidates, not 3
    """
    if not 1 <= num_landmarks <= candidates:
        raise ValueError(
            f"num_landmarks has to be from 1 to {candidates}, the number of candidates, not {num_landmarks}"
        )


def _prototypes(
    pool: Tensor, num_landmarks: int, first_index: Tensor | None, generator: Generator | None, share: float
) -> Tensor:
    """The chosen rows of `pool` as they are, in order of their index."""
    count = pool.shape[1]
    check_landmarks(num_landmarks, count)
    if share < 1:
        drawn = (pool.shape[0], max(int(share * count), num_landmarks))
        rows = torch.randint(count, drawn, generator=generator, device=pool.device)
        looked_at = pool.gather(1, rows[..., None].expand(-1, -1, pool.shape[-1]))
        found = rows.gather(1, orthogonal_prototypes(looked_at, num_landmarks, first_index, generator))
    else:
        found = orthogonal_prototypes(pool, num_landmarks, first_index, generator)
    return pool.gather(1, found.sort(1).values[..., None].expand(-1, -1, pool.shape[-1]))


def _segment_means(x: Tensor, num_frames: int, count: int, spatial: bool) -> Tensor:
    """Means of `count` runs of neighbouring tokens; where they do not divide evenly, the last ones are one longer."""
    if spatial:
        x = x.unflatten(1, (num_frames, -1)).transpose(1, 2).flatten(1, 2)
    length = x.shape[1] // count
    short = (length + 1) * count - x.shape[1]
    head, tail = x[:, : short * length], x[:, short * length :]
    means = [head.unflatten(1, (short, length)).mean(2)]
    if short < count:
        means.append(tail.unflatten(1, (count - short, length + 1)).mean(2))
    return torch.cat(means, dim=1)
