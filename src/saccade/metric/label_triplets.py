"""The triplet losses that the log-ratio loss is compared with, on continuous labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.metric.label_distances import EXACT, check_single, squared_to_first, to_anchors

CHUNK = 2**24
"""Pairs compared at a time."""


class DenseTripletLoss(nn.Module):
    r"""All triplets of an anchor by the order of label distances (arXiv:1904.09626).

    $[\lVert f_a - f_i \rVert^2 - \lVert f_a - f_j \rVert^2 + \delta]_+$ for every i nearer to the anchor by label
    than j, the mean over all such pairs. The hinge is piecewise linear: which pairs are active is found without a
    gradient, and the loss is then a weighted sum of m distances, so that nothing of the size m x m is kept for the
    backward pass.

    Args:
        margin: δ, at least 0.
        normalize: Bring embeddings to unit length first; without, they are taken as they are.

    Raises:
        ValueError: A margin below 0.

    Example:
        >>> loss = DenseTripletLoss()
        >>> loss(torch.randn(31, 32), torch.rand(30)).shape
        torch.Size([])
    """

    def __init__(self, margin: float = 0.03, normalize: bool = True) -> None:
        super().__init__()
        self.margin = _margin(margin)
        self.normalize = normalize

    def forward(
        self,
        embeddings: Float[Tensor, "n d"],
        targets: Float[Tensor, ...] | None = None,
        anchors: Int[Tensor, " a"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over anchors and pairs.

        Args:
            embeddings: Of any norm.
            targets: Label distances to row 0, (n - 1,); or of all pairs of rows, (n, n); or labels, (n, k). Where
                `None`, row 0 is the anchor and rows 1, 2, ... are sorted by label distance, as the authors' code takes
                them.
            anchors: Rows that serve as anchors; all where `None`.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: Shapes that disagree, fewer than 2 neighbours, a label distance that is negative or not finite.
            TypeError: Not floating point.
        """
        if targets is None:
            targets = torch.arange(1, len(embeddings), device=embeddings.device, dtype=torch.float32)
        squared, order = squared_and_order(embeddings, targets, anchors, self.normalize)
        m = order.shape[1]
        with torch.no_grad():
            slopes, active = self._slopes(squared.gather(1, order))
            weights = torch.zeros_like(squared).scatter_(1, order, slopes)
        return ((weights * squared).sum() + self.margin * active) / (len(order) * (m * (m - 1) // 2))

    def _slopes(self, s: Float[Tensor, "a m"]) -> tuple[Float[Tensor, "a m"], Float[Tensor, ""]]:
        """How often each distance counts, less how often it is subtracted; and the number of active pairs."""
        m = s.shape[1]
        slopes, active = [], s.new_zeros(())
        for part in s.split(max(1, CHUNK // (m * m))):
            # floats, for their sums are vectorised; counts up to 2^24 are exact
            on = (part[:, :, None] + self.margin > part[:, None, :]).to(s).triu_(1)
            above = on.sum(dim=2)
            slopes.append(above - on.sum(dim=1))
            active = active + above.sum()
        return torch.cat(slopes), active

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"margin={self.margin:g}, normalize={self.normalize}"


class BinaryTripletLoss(nn.Module):
    r"""The triplet loss on labels cut into near and far: the baseline that throws degrees away.

    The `num_positives` nearest by label are positives, the others negatives; the mean of
    $[\lVert f_a - f_p \rVert^2 - \lVert f_a - f_n \rVert^2 + \delta]_+$ over all pairs of them.

    Args:
        margin: δ, at least 0.
        num_positives: Positives of an anchor in a batch.
        normalize: Bring embeddings to unit length first.

    Raises:
        ValueError: A margin below 0 or no positive.

    Example:
        >>> loss = BinaryTripletLoss(num_positives=5)
        >>> loss(torch.randn(31, 32), torch.rand(30)).shape
        torch.Size([])
    """

    def __init__(self, margin: float = 0.2, num_positives: int = 5, normalize: bool = True) -> None:
        super().__init__()
        self.margin = _margin(margin)
        if num_positives < 1:
            raise ValueError(f"num_positives is {num_positives}; at least 1 is accepted")
        self.num_positives = num_positives
        self.normalize = normalize

    def forward(
        self,
        embeddings: Float[Tensor, "n d"],
        targets: Float[Tensor, ...],
        anchors: Int[Tensor, " a"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over anchors, positives and negatives.

        Args:
            embeddings: Of any norm.
            targets: Label distances to row 0, (n - 1,); or of all pairs of rows, (n, n); or labels, (n, k).
            anchors: Rows that serve as anchors; all where `None`.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: Shapes that disagree, no neighbour left for a negative, a label distance that is negative or not
                finite.
            TypeError: Not floating point.
        """
        squared, order = squared_and_order(embeddings, targets, anchors, self.normalize)
        nearness = squared.gather(1, order)
        if nearness.shape[1] <= self.num_positives:
            raise ValueError(f"{nearness.shape[1]} neighbours leave no negative beside {self.num_positives} positives")
        positive, negative = nearness[:, : self.num_positives], nearness[:, self.num_positives :]
        return F.relu(positive[:, :, None] - negative[:, None, :] + self.margin).mean()

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"margin={self.margin:g}, num_positives={self.num_positives}, normalize={self.normalize}"


def triplet_hinge(
    anchors: Float[Tensor, "n d"], positives: Float[Tensor, "n d"], negatives: Float[Tensor, "n d"], margin: float = 0.2
) -> Float[Tensor, ""]:
    """The mean of the hinge over triplets taken as given: squared distances, nothing normalised.

    Args:
        anchors: One a triplet.
        positives: What should be nearer.
        negatives: What should be farther by at least the margin.
        margin: In squared distance.

    Returns:
        A scalar.

    Example:
        >>> triplet_hinge(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2), margin=0.5)
        tensor(0.5000)
    """
    if not anchors.shape == positives.shape == negatives.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (anchors, positives, negatives))
        raise ValueError(f"anchors, positives and negatives have the shapes {shapes}; equal ones are accepted")
    near, far = ((anchors - other).square().sum(dim=1) for other in (positives, negatives))
    return F.relu(near - far + margin).mean()


def squared_and_order(
    embeddings: Float[Tensor, "n d"],
    targets: Float[Tensor, ...],
    anchors: Int[Tensor, " a"] | None,
    normalize: bool,
) -> tuple[Float[Tensor, "a k"], Int[Tensor, "a m"]]:
    """Squared embedding distances of each anchor, and the order of its neighbours by label.

    Args:
        embeddings: The batch.
        targets: As the losses take them.
        anchors: Rows.
        normalize: Whether to bring embeddings to unit length.

    Returns:
        One row an anchor: distances to the neighbours, or to all rows; and the columns of all others, those nearest by
        label first (ties in their order).
    """
    single = targets.ndim == 1
    if single:
        check_single(embeddings, targets, anchors)
    else:
        rows, labels = to_anchors(embeddings, targets, anchors)
    with torch.autocast(embeddings.device.type, enabled=False):
        x = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        x = F.normalize(x, dim=1) if normalize else x
        if single:
            return squared_to_first(x)[None], targets.detach().sort(stable=True).indices[None]
        squared = torch.cdist(x[rows], x, compute_mode=EXACT).square()
    first = labels.scatter(1, rows[:, None], -1.0)  # the anchor itself, to be left out
    return squared, first.sort(dim=1, stable=True).indices[:, 1:]


def _margin(margin: float) -> float:
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin is {margin}; a finite number of 0 or above is accepted")
    return margin
