"""Losses over classes: each has a learnable vector, and embeddings are classified by their angle to it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.metric.distances import CosineSimilarity, DotProductSimilarity
from saccade.metric.inputs import check_labels
from saccade.metric.loss_terms import terms
from saccade.metric.losses.base import BaseMetricLossFunction, WeightedLoss, elements, miner_weights, widen_
from saccade.metric.reducers import LossDict
from saccade.metric.tuples import IndicesTuple


class LargeMarginSoftmaxLoss(WeightedLoss):
    r"""Large-margin softmax (arXiv:1612.02295): the own class's angle θ counts as if it were m times as large.

    The own cosine becomes $(-1)^k \cos(m θ) - 2 k$ with $k = \lfloor m θ / π \rfloor$; logits are times the norms of
    embedding and class vector. A tuple only weights the samples.

    Args:
        num_classes: C; labels are 0 to C - 1.
        embedding_size: d.
        margin: m, an integer.
        scale: Factor of the logits.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Attributes:
        W: The class vectors, (d, C).

    Example:
        >>> LargeMarginSoftmaxLoss(4, 8)(torch.randn(6, 8), torch.arange(6) % 4).shape
        torch.Size([])
    """

    takes_ref = False
    sub_centers: int

    def __init__(
        self, num_classes: int, embedding_size: int, margin: float = 4, scale: float = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.require_distance(CosineSimilarity)
        self.num_classes = num_classes
        self.margin = self._margin(margin)
        self.scale = scale
        self.W = nn.Parameter(torch.empty(embedding_size, self._columns()))
        self.weight_init_func(self.W)
        self.add_to_recordable_attributes(list_of_names=["num_classes", "margin", "scale"])
        self.add_to_recordable_attributes(name="avg_angle", is_stat=True)

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        labels = class_labels(self, embeddings, labels, self.num_classes)
        widen_(self.W, embeddings)
        own = labels.unsqueeze(1)
        cosine = self.get_cosine(embeddings)
        target = cosine.gather(1, own)
        if self.collect_stats:
            self.avg_angle = math.degrees(float(target.detach().clamp(-1, 1).acos().mean()))
        logits = self.scale_logits(cosine.scatter(1, own, self.with_margin(target)), embeddings)
        losses = F.cross_entropy(logits, labels, reduction="none") * miner_weights(indices_tuple, embeddings)
        loss_dict = {"loss": elements(losses)}
        self.add_weight_regularization(loss_dict, self.W.T)
        return loss_dict

    def get_cosine(self, embeddings: Tensor) -> Tensor:
        """Cosines of embeddings and classes, (b, C)."""
        return self.distance(embeddings, self.W.T.to(embeddings.dtype))

    def with_margin(self, cosine: Tensor) -> Tensor:
        """What takes the place of the own class's cosine."""
        with torch.no_grad():
            k = (cosine.clamp(-1, 1).acos() * (self.margin / math.pi)).floor()
        return (1 - 2 * (k % 2)) * _chebyshev(cosine, int(self.margin)) - 2 * k

    def scale_logits(self, logits: Tensor, embeddings: Tensor) -> Tensor:
        """From cosines to logits."""
        norms = self.distance.get_norm(embeddings).unsqueeze(1) * self.distance.get_norm(self.W, dim=0)
        return logits * norms * self.scale

    def get_logits(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logits without margin, to classify with."""
        return self.scale_logits(self.get_cosine(embeddings), embeddings)

    def _margin(self, margin: float) -> float:
        return int(margin)

    def _columns(self) -> int:
        return self.num_classes


class SphereFaceLoss(LargeMarginSoftmaxLoss):
    """SphereFace (arXiv:1704.08063): large-margin softmax with class vectors of unit length.

    Args:
        *args: As for [`LargeMarginSoftmaxLoss`][saccade.metric.losses.LargeMarginSoftmaxLoss].
        **kwargs: Likewise.
    """

    def scale_logits(self, logits: Tensor, embeddings: Tensor) -> Tensor:
        """Times the norm of the embedding."""
        return logits * self.distance.get_norm(embeddings).unsqueeze(1) * self.scale


class ArcFaceLoss(LargeMarginSoftmaxLoss):
    r"""ArcFace (arXiv:1801.07698, eq. 3): the margin is added to the angle, $\cos(θ + m)$.

    Beyond π - m, where that would rise again, $\cos θ - m \sin m$ takes its place.

    Args:
        num_classes: C.
        embedding_size: d.
        margin: m, in degrees.
        scale: Factor of the cosines.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Example:
        >>> ArcFaceLoss(4, 8)(torch.randn(6, 8), torch.arange(6) % 4).shape
        torch.Size([])
    """

    def __init__(
        self, num_classes: int, embedding_size: int, margin: float = 28.6, scale: float = 64, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, embedding_size, margin, scale, **kwargs)

    def with_margin(self, cosine: Tensor) -> Tensor:  # noqa: D102
        limit = 1 - torch.finfo(cosine.dtype).eps  # the gradient of the sine is not finite at 1
        sine = (1 - cosine.clamp(-limit, limit).square()).sqrt()
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        return torch.where(cosine >= -math.cos(self.margin), turned, cosine - self.margin * math.sin(self.margin))

    def scale_logits(self, logits: Tensor, embeddings: Tensor) -> Tensor:  # noqa: D102
        return logits * self.scale

    def _margin(self, margin: float) -> float:
        return math.radians(margin)


class CosFaceLoss(LargeMarginSoftmaxLoss):
    r"""CosFace (arXiv:1801.09414, eq. 4): the margin is taken off the cosine, $\cos θ - m$.

    Args:
        num_classes: C.
        embedding_size: d.
        margin: m.
        scale: Factor of the cosines.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Example:
        >>> CosFaceLoss(4, 8)(torch.randn(6, 8), torch.arange(6) % 4).shape
        torch.Size([])
    """

    def __init__(
        self, num_classes: int, embedding_size: int, margin: float = 0.35, scale: float = 64, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, embedding_size, margin, scale, **kwargs)

    def with_margin(self, cosine: Tensor) -> Tensor:  # noqa: D102
        return cosine - self.margin

    def scale_logits(self, logits: Tensor, embeddings: Tensor) -> Tensor:  # noqa: D102
        return logits * self.scale

    def _margin(self, margin: float) -> float:
        return margin


class SubCenterArcFaceLoss(ArcFaceLoss):
    """Sub-center ArcFace (Deng et al., ECCV 2020): a class has K vectors, and its cosine is the largest of theirs.

    Noisy samples gather around centres of their own, which [`get_outliers`]
    [saccade.metric.losses.SubCenterArcFaceLoss.get_outliers] finds.

    Args:
        num_classes: C.
        embedding_size: d.
        margin: In degrees.
        scale: Factor of the cosines.
        sub_centers: K; columns c K to c K + K - 1 of `W` are those of class c.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Example:
        >>> loss = SubCenterArcFaceLoss(num_classes=4, embedding_size=8)
        >>> loss(torch.randn(6, 8), torch.arange(6) % 4).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 28.6,
        scale: float = 64,
        sub_centers: int = 3,
        **kwargs: Any,
    ) -> None:
        self.__dict__["sub_centers"] = sub_centers
        super().__init__(num_classes, embedding_size, margin, scale, **kwargs)

    def get_cosine(self, embeddings: Tensor) -> Tensor:  # noqa: D102
        return super().get_cosine(embeddings).unflatten(1, (self.num_classes, self.sub_centers)).max(dim=2).values

    @torch.no_grad()
    def get_outliers(
        self,
        embeddings: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"],
        threshold: float = 75,
        return_dominant_centers: bool = True,
    ) -> Any:
        """Samples that are far from the centre which most of their class are nearest to.

        Args:
            embeddings: All of them.
            labels: Their classes.
            threshold: From so many degrees on a sample is an outlier.
            return_dominant_centers: Whether the centres are returned, too.

        Returns:
            Indices of outliers, by class; and the dominant centres (d, C), NaN for classes without samples.
        """
        labels = class_labels(self, embeddings, labels, self.num_classes)
        centers = self.W.T.to(embeddings.dtype).unflatten(0, (self.num_classes, self.sub_centers))
        own = self.distance.normalize(centers, dim=2)[labels]
        cosines = torch.einsum("bd,bkd->bk", self.distance.normalize(embeddings), own)
        votes = cosines.new_zeros((self.num_classes, self.sub_centers))
        votes.index_put_((labels, cosines.argmax(dim=1)), torch.ones_like(cosines[:, 0]), accumulate=True)
        dominant = votes.argmax(dim=1)
        far = cosines.gather(1, dominant[labels].unsqueeze(1)).squeeze(1) < math.cos(math.radians(threshold))
        outliers = far.nonzero().squeeze(1)
        outliers = outliers[labels[outliers].argsort(stable=True)]
        if not return_dominant_centers:
            return outliers
        chosen = centers[torch.arange(self.num_classes, device=centers.device), dominant]
        return outliers, chosen.masked_fill(votes.sum(dim=1, keepdim=True) == 0, torch.nan).T

    def _columns(self) -> int:
        return self.num_classes * self.sub_centers


class NormalizedSoftmaxLoss(WeightedLoss):
    """Normalised softmax (arXiv:1811.12649): cross-entropy of cosines over a temperature.

    Args:
        num_classes: C.
        embedding_size: d.
        temperature: Above 0.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Attributes:
        W: The class vectors, (d, C).

    Example:
        >>> NormalizedSoftmaxLoss(4, 8)(torch.randn(6, 8), torch.arange(6) % 4).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(self, num_classes: int, embedding_size: int, temperature: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.temperature = temperature
        self.W = nn.Parameter(torch.empty(embedding_size, num_classes))
        self.weight_init_func(self.W)
        self.add_to_recordable_attributes(list_of_names=["embedding_size", "num_classes", "temperature"])

    default_distance = DotProductSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        labels = class_labels(self, embeddings, labels, self.num_classes)
        widen_(self.W, embeddings)
        losses = F.cross_entropy(self.get_logits(embeddings), labels, reduction="none")
        loss_dict = {"loss": elements(losses * miner_weights(indices_tuple, embeddings))}
        self.add_weight_regularization(loss_dict, self.W.T)
        return loss_dict

    def get_logits(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Similarities over the temperature."""
        vectors = self.distance.normalize(self.W, dim=0).T.to(embeddings.dtype)
        logits = self.distance(embeddings, vectors) / self.temperature
        return logits if self.distance.is_inverted else -logits


class P2SGradLoss(BaseMetricLossFunction):
    """P2SGrad (arXiv:1905.02479, eq. 11) as a loss: squared difference of cosines and one-hot labels, averaged.

    Args:
        descriptors_dim: d.
        num_classes: C.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Attributes:
        weight: The class vectors, (d, C); brought to unit length at each call.

    Example:
        >>> P2SGradLoss(8, 4)(torch.randn(6, 8), torch.arange(6) % 4).shape
        torch.Size([])
    """

    takes_ref = False
    takes_tuples = False

    def __init__(self, descriptors_dim: int, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.descriptors_dim = descriptors_dim
        self.num_classes = num_classes
        self.weight = nn.Parameter(F.normalize(torch.empty(descriptors_dim, num_classes).uniform_(-1, 1), dim=0))

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        labels = class_labels(self, embeddings, labels, self.num_classes)
        widen_(self.weight, embeddings)
        with torch.no_grad():
            self.weight.copy_(F.normalize(self.weight, dim=0))
        # the length is 1, and no gradient goes through it
        cosines = (F.normalize(embeddings, dim=1) @ self.weight.to(embeddings.dtype)).clamp(-1, 1)
        wanted = torch.zeros_like(cosines).scatter_(1, labels.unsqueeze(1), 1.0)
        return {"loss": terms(F.mse_loss(cosines, wanted), None, "already_reduced")}


def class_labels(loss: nn.Module, embeddings: Tensor, labels: Any, num_classes: int) -> Tensor:
    """The labels, checked.

    Raises:
        ValueError: None, or one outside the classes.
        TypeError: Not integers.
    """
    if labels is None:
        raise ValueError(f"labels are None; {type(loss).__name__} needs the class of each sample")
    labels = labels.to(embeddings.device)
    check_labels(labels, len(embeddings), num_classes)
    return labels.long()


def _chebyshev(x: Tensor, order: int) -> Tensor:
    """Cos(order · arccos x), a polynomial."""
    before, now = torch.ones_like(x), x
    if order == 0:
        return before
    for _ in range(order - 1):
        before, now = now, 2 * x * now - before
    return now
