"""A branching diffusion process: a family tree whose members differ from their parents by noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Tree:
    """Nodes, and noisy siblings of each.

    Args:
        values: (nodes * siblings, features).
        node: Which node each row stands for.
        parent: Of each node; -1 for the root.
        depth: Of each node.
    """

    values: Float[Tensor, "n f"]
    node: Int[Tensor, " n"]
    parent: Int[Tensor, " m"]
    depth: Int[Tensor, " m"]


def branching_diffusion(
    seed: int, depth: int = 6, branching: int = 2, features: int = 50, siblings: int = 50, noise: float = 0.2
) -> Tree:
    """A complete tree; each node is its parent plus a standard normal step (arXiv:1901.06033, appendix).

    Args:
        seed: Everything random comes from it.
        depth: Levels below the root.
        branching: Children of each node.
        features: Size of a node's vector.
        siblings: Noisy copies of each node.
        noise: Their deviation, relative to a step.

    Returns:
        The tree, its values centred and scaled to unit deviation.

    Raises:
        ValueError: Numbers that are not positive.

    Example:
        >>> tree = branching_diffusion(0, depth=2, siblings=3)
        >>> tree.values.shape, tree.depth.tolist()
        (torch.Size([21, 50]), [0, 1, 1, 2, 2, 2, 2])
    """
    if min(branching, features, siblings) < 1 or depth < 0 or noise < 0:
        raise ValueError("branching, features and siblings are at least 1, depth and noise not negative")
    rng = np.random.default_rng(seed)
    values, parent, level = [np.zeros(features)], [-1], [0]
    newest = [0]
    for generation in range(1, depth + 1):
        born = []
        for node in newest:
            for _ in range(branching):
                values.append(values[node] + rng.normal(size=features))
                parent.append(node)
                level.append(generation)
                born.append(len(values) - 1)
        newest = born
    nodes = np.stack(values)
    copies = np.repeat(nodes, siblings, axis=0) + noise * rng.normal(size=(len(nodes) * siblings, features))
    copies = (copies - copies.mean()) / copies.std()
    return Tree(
        torch.from_numpy(copies).float(),
        torch.arange(len(nodes)).repeat_interleave(siblings),
        torch.tensor(parent),
        torch.tensor(level),
    )
