"""Losses over proxies: learnable points that stand for classes, or for parts of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from saccade.metric.distances import CosineSimilarity
from saccade.metric.loss_terms import terms
from saccade.metric.losses.base import BaseMetricLossFunction, Init, WeightedLoss, elements, miner_weights, widen_
from saccade.metric.losses.classification import class_labels
from saccade.metric.losses.rows import NCALoss
from saccade.metric.reducers import LossDict
from saccade.metric.tuples import IndicesTuple


class ProxyNCALoss(WeightedLoss, NCALoss):
    r"""Proxy-NCA (arXiv:1703.07464) with the own proxy in the denominator: NCA with proxies as references.

    Cross-entropy over $-\text{scale} \cdot \lVert x - p \rVert^2$ of normalised embeddings and proxies. A tuple only
    weights the samples, by how often they are anchors.

    Args:
        num_classes: C; labels are 0 to C - 1.
        embedding_size: d.
        softmax_scale: Factor of the distances.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Attributes:
        proxies: (C, d), drawn from N(0, 1).

    Raises:
        ValueError: A size below 1, or a scale that is not positive.

    Example:
        >>> loss = ProxyNCALoss(num_classes=10, embedding_size=32)
        >>> loss(torch.randn(16, 32), torch.randint(10, (16,))).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(self, num_classes: int, embedding_size: int, softmax_scale: float = 1, **kwargs: Any) -> None:
        super().__init__(softmax_scale=softmax_scale, **kwargs)
        if num_classes < 1 or embedding_size < 1:
            raise ValueError(
                f"num_classes and embedding_size are {num_classes} and {embedding_size}; both must be >= 1"
            )
        if not softmax_scale > 0:
            raise ValueError(f"softmax_scale is {softmax_scale}; a number above 0 is accepted")
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.proxies = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.weight_init_func(self.proxies)
        self.add_to_recordable_attributes(name="num_classes")

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        labels = class_labels(self, embeddings, labels, self.num_classes)
        widen_(self.proxies, embeddings)
        logits = self.get_logits(embeddings) * (self.softmax_scale * (1 if self.distance.is_inverted else -1))
        losses = F.cross_entropy(logits, labels, reduction="none")
        loss_dict = {"loss": elements(losses * miner_weights(indices_tuple, embeddings, using_ref=True))}
        self.add_weight_regularization(loss_dict, self.proxies)
        return loss_dict

    def get_logits(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """The distances of embeddings and proxies."""
        return self.distance(embeddings, self.proxies.to(embeddings.dtype))


class SoftTripleLoss(WeightedLoss):
    r"""SoftTriple (arXiv:1909.05235, eq. 6): a class has K centres, and its similarity is a soft maximum over them.

    Cross-entropy of $λ (S_{ic} - δ [c = y_i])$ with $S_{ic} = \sum_k \mathrm{softmax}_k(s_k / γ) s_k$.

    Args:
        num_classes: C.
        embedding_size: d.
        centers_per_class: K; columns c K to c K + K - 1 of `fc` are those of class c.
        la: λ.
        gamma: γ.
        margin: δ.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Attributes:
        fc: The centres, (d, C K).

    Example:
        >>> SoftTripleLoss(4, 8)(torch.randn(6, 8), torch.arange(6) % 4).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        centers_per_class: int = 10,
        la: float = 20,
        gamma: float = 0.1,
        margin: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.require_distance(is_inverted=True)
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.centers_per_class = centers_per_class
        self.la = la
        self.gamma = 1 / gamma
        self.margin = margin
        self.fc = nn.Parameter(torch.empty(embedding_size, num_classes * centers_per_class))
        self.weight_init_func(self.fc)
        self.add_to_recordable_attributes(
            list_of_names=["la", "gamma", "margin", "centers_per_class", "num_classes", "embedding_size"]
        )

    default_distance = CosineSimilarity

    def get_default_weight_init_func(self) -> Callable[[Tensor], Any]:
        """As of a linear layer."""
        return Init(nn.init.kaiming_uniform_, a=math.sqrt(5))

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        labels = class_labels(self, embeddings, labels, self.num_classes)
        widen_(self.fc, embeddings)
        similarity = self.get_logits(embeddings)
        own = labels.unsqueeze(1)
        logits = self.la * similarity.scatter_add(1, own, torch.full_like(similarity[:, :1], -self.margin))
        losses = F.cross_entropy(logits, labels, reduction="none") * miner_weights(indices_tuple, embeddings)
        loss_dict = {"loss": elements(losses)}
        self.add_weight_regularization(loss_dict, self.fc.T)
        return loss_dict

    def get_logits(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Similarities of embeddings and classes."""
        shape = (self.num_classes, self.centers_per_class)
        centers = self.fc.T.to(embeddings.dtype).unflatten(0, shape).transpose(0, 1).flatten(0, 1)
        similarity = self.distance(embeddings, centers).unflatten(1, shape[::-1])  # the long axis last, for speed
        return ((similarity * self.gamma).softmax(dim=1) * similarity).sum(dim=1)


class ManifoldLoss(BaseMetricLossFunction):
    r"""Manifold similarity (Aziere and Todorovic, CVPR 2019): proxies compared along random walks over the batch.

    With the affinities $S = e^{2 [\cos]_+}$ of embeddings and proxies without diagonal,
    $F = (1-α)(I - α D^{-1/2} S D^{-1/2})^{-1}$. A sample is to be nearer to the proxy of its meta-class than to the
    others, in F itself (intrinsic) and in the cosines of rows of F (context):
    $\log(1 + \sum_{k \ne c, F_{ik} > F_{ic} - m} e^{F_{ik} - F_{ic} + m})$.

    Args:
        l: Embedding size.
        K: Number of proxies.
        lambdaC: Weight of the context; infinite for the context alone.
        alpha: α in (0, 1).
        margin: m.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Attributes:
        proxies: (K, l).

    Raises:
        ValueError: A negative weight, labels, embeddings of another size, or meta-classes that are not one of the K
            for each row.

    Example:
        >>> ManifoldLoss(l=8, K=3)(torch.randn(6, 8)).shape
        torch.Size([])
    """

    takes_labels = False
    takes_ref = False

    def __init__(
        self,
        l: int,  # noqa: E741
        K: int = 50,
        lambdaC: float = 1.0,
        alpha: float = 0.8,
        margin: float = 5e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if lambdaC < 0:
            raise ValueError(f"lambdaC is {lambdaC}; a number from 0 on is accepted")
        self.l = l
        self.K = K
        self.lambdaC = lambdaC
        self.alpha = alpha
        self.margin = margin
        self.proxies = nn.Parameter(torch.randn(K, l))
        self.add_to_recordable_attributes(list_of_names=["K", "l", "lambdaC", "alpha", "margin"])

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: Any, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if embeddings.shape[1] != self.l:
            raise ValueError(f"embeddings have the shape {tuple(embeddings.shape)}; (number, {self.l}) is accepted")
        classes = self._meta_classes(indices_tuple, len(embeddings)).to(embeddings.device)
        nodes = torch.cat([embeddings, self.proxies.to(embeddings)])
        affinity = (2 * self.distance(nodes).clamp(min=0)).exp()
        affinity = affinity - torch.diag_embed(affinity.diagonal())
        scale = affinity.sum(dim=1).rsqrt()
        walk = (scale.unsqueeze(1) * affinity * scale).float()
        identity = torch.eye(len(nodes), device=walk.device)
        similarity = ((1 - self.alpha) * torch.linalg.inv(identity - self.alpha * walk)).to(embeddings.dtype)
        of_samples, of_proxies = similarity[: len(embeddings)], similarity[len(embeddings) :]
        context = self._nearest_proxy(F.normalize(of_samples, dim=1) @ F.normalize(of_proxies, dim=1).T, classes)
        if math.isinf(self.lambdaC):
            return {"loss": terms(context, None, "already_reduced")}
        intrinsic = self._nearest_proxy(of_samples[:, len(embeddings) :], classes)
        return {"loss": terms(intrinsic + self.lambdaC * context, None, "already_reduced")}

    def _nearest_proxy(self, similarity: Tensor, classes: Tensor) -> Tensor:
        """How much nearer other proxies are than the own, those counted that are within the margin."""
        own = classes.unsqueeze(1)
        excess = (similarity - similarity.gather(1, own) + self.margin).scatter(1, own, -1.0)
        return torch.where(excess >= 0, excess.exp(), 0).sum(dim=1).log1p().mean()

    def _meta_classes(self, given: Any, number: int) -> Tensor:
        if given is None:
            if number < self.K:
                raise ValueError(f"a batch of {number} came; with {self.K} proxies at least as many are needed")
            drawn = torch.cat([torch.arange(self.K), torch.randint(self.K, (number - self.K,))])
            return drawn[torch.randperm(number)]
        if not torch.is_tensor(given) or given.shape != (number,):
            raise ValueError(f"ManifoldLoss takes meta-classes as indices_tuple: a tensor of the shape ({number},)")
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >= self.K:
            raise ValueError(f"meta-classes are {low} to {high}; 0 to {self.K - 1} are accepted")
        return given
