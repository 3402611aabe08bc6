"""Positive random features: a softmax kernel as a plain product (arXiv:2009.14794)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def orthogonal_gaussian(num_features: int, dim: int, generator: Generator | None = None) -> Float[Tensor, "r d"]:
    """Directions for random features: orthogonal within blocks of `dim`, with the lengths of Gaussian vectors.

    Args:
        num_features: How many.
        dim: Of each.
        generator: Draws them, on the CPU; torch's own where `None`.

    Returns:
        One row a feature.

    Raises:
        ValueError: Fewer than one feature or dimension.

    Note:
        Source: arXiv:2009.14794, section 2.4.

    Example:
        >>> w = orthogonal_gaussian(6, 4, torch.Generator().manual_seed(0))
        >>> w.shape, (w[:4] @ w[:4].T).fill_diagonal_(0).abs().max() < 1e-5
        (torch.Size([6, 4]), tensor(True))
    """
    if num_features < 1 or dim < 1:
        raise ValueError(f"num_features and dim have to be at least 1, not {num_features} and {dim}")
    blocks = -(-num_features // dim)
    directions = torch.linalg.qr(torch.randn(blocks, dim, dim, generator=generator))[0].flatten(0, 1)
    lengths = torch.randn(num_features, dim, generator=generator).norm(dim=1, keepdim=True)
    return directions[:num_features] * lengths


def positive_features(
    x: Float[Tensor, "b n d"], projection: Float[Tensor, "r d"], kind: Literal["query", "key"], epsilon: float = 1e-6
) -> Float[Tensor, "b n r"]:
    """Features whose products approximate `exp(q . k / sqrt(d))`, up to a factor that normalisation takes out.

    Args:
        x: Queries or keys of one head, unscaled.
        projection: Directions of the features.
        kind: Whose they are. The largest exponent is subtracted before the exponential: of each query, or of all keys
            of a head together.
        epsilon: Added to each feature, so that none is zero.

    Returns:
        Features, all positive.

    Raises:
        ValueError: Another kind.

    Note:
        Source: arXiv:2009.14794, lemma 1.

    Example:
        >>> positive_features(torch.zeros(1, 2, 4), torch.ones(8, 4), "query").sum(-1)
        tensor([[2.8284, 2.8284]])
    """
    if kind not in ("query", "key"):
        raise ValueError(f"kind is 'query' or 'key', not {kind!r}")
    x = x * x.shape[-1] ** -0.25
    dot = torch.matmul(x, projection.to(x).mT)
    largest = dot.amax(-1 if kind == "query" else (-2, -1), keepdim=True)
    exponent = dot - x.square().sum(-1, keepdim=True) / 2
    return ((exponent - largest).exp() + epsilon) * projection.shape[0] ** -0.5
