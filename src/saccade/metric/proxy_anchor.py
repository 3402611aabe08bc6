r"""Proxy Anchor: a metric-learning loss with one learnable anchor a class.

Deep metric learning trains an embedding in which images of a class lie together, also for classes that it never saw,
so that nearest neighbours answer a query. Losses over pairs or triplets of a batch see how samples relate to each
other, but there are very many tuples and most teach nothing. Losses over proxies, one learnable vector a class, are
cheap and converge fast, but look at one sample at a time.

Proxy Anchor (Kim et al., CVPR 2020) takes the proxy as the anchor and compares it with all samples of the batch at
once. With the cosine similarity $s$, margin $\delta$ and scale $\alpha$,

$$\ell(X) = \frac{1}{|P^+|} \sum_{p \in P^+} \log\Big(1 + \sum_{x \in X_p^+} e^{-\alpha (s(x, p) - \delta)}\Big)
          + \frac{1}{|P|} \sum_{p \in P} \log\Big(1 + \sum_{x \in X_p^-} e^{\alpha (s(x, p) + \delta)}\Big),$$

where $P$ are the proxies, $P^+$ those whose class is in the batch, and $X_p^\pm$ the samples of the class of $p$ and
the others. The gradient of a sample is weighted by its hardness relative to the rest of the batch. The cost is one
matrix product of the batch with the proxies; there is nothing to mine. Proxies are thrown away after training:
retrieval compares embeddings by their cosine.

The loss stands alone, and [`ProxyAnchorModel`][saccade.metric.ProxyAnchorModel] is the network around it as the
authors train it: any backbone, average plus maximum pooling, a linear layer, frozen batch norm.

    loss = ProxyAnchorLoss(num_classes=100, embedding_size=512)
    model = ProxyAnchorModel("resnet50", embedding_size=512)
    optimizer = torch.optim.AdamW(proxy_anchor_param_groups(model, loss, lr=1e-4), weight_decay=1e-4)
    loss(model(images), labels).backward()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from saccade.metric.distances import CosineSimilarity
from saccade.metric.inputs import check_embeddings
from saccade.metric.losses.base import Init, WeightedLoss, elements, widen_
from saccade.metric.losses.classification import class_labels
from saccade.metric.losses.sums import grouped_logsumexp
from saccade.metric.reducers import DivisorReducer, LossDict
from saccade.metric.tuples import IndicesTuple, appearance_weights
from saccade.nn.backbones import feature_extractor

EPS = 1e-12
"""Added to squared norms, as in the authors' code."""


class ProxyAnchorLoss(WeightedLoss):
    """Proxy Anchor loss (arXiv:2003.13911, eq. 4).

    Embeddings and proxies are normalised inside. The computation is in float32, also under autocast: at the default
    scale of 32 a logit in bfloat16 would be off by 0.1.

    Args:
        num_classes: Number of classes C, at least 1; labels are 0 to C - 1.
        embedding_size: Width d of the embeddings.
        margin: Margin δ: how far beyond 0 similarities are pushed on either side.
        alpha: Scale α > 0 of the similarities; the larger, the more the hardest samples count.
        **kwargs: As for [`WeightedLoss`][saccade.metric.losses.WeightedLoss].

    Attributes:
        proxies: The learnable anchors, (C, d), drawn from N(0, 2/C).

    Raises:
        ValueError: A size below 1, an `alpha` that is not positive, or a margin that is not finite.

    Example:
        >>> loss = ProxyAnchorLoss(num_classes=10, embedding_size=32)
        >>> embeddings, labels = torch.randn(16, 32), torch.randint(10, (16,))
        >>> loss(embeddings, labels).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(
        self, num_classes: int, embedding_size: int, margin: float = 0.1, alpha: float = 32.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1 or embedding_size < 1:
            raise ValueError(
                f"num_classes and embedding_size are {num_classes} and {embedding_size}; both must be >= 1"
            )
        if not math.isfinite(margin):
            raise ValueError(f"margin is {margin}; a finite number is accepted")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha is {alpha}; a finite number above 0 is accepted")
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.margin = margin
        self.alpha = alpha
        self.proxies = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.weight_init_func(self.proxies)
        self.add_to_recordable_attributes(list_of_names=["num_classes", "alpha", "margin"])

    default_distance = CosineSimilarity

    default_reducer = DivisorReducer

    def get_default_weight_init_func(self) -> Callable[[Tensor], Any]:
        """From N(0, 2/C)."""
        return Init(nn.init.kaiming_normal_, mode="fan_out")

    def _sub_loss_names(self) -> list[str]:
        return ["pos_loss", "neg_loss"]

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        check_embeddings(embeddings, self.embedding_size)
        labels = class_labels(self, embeddings, labels, self.num_classes)
        widen_(self.proxies, embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            cosine = self.distance(_wide(embeddings), _wide(self.proxies))
            own = labels.unsqueeze(1)
            attraction = self.alpha * self.distance.margin(cosine.gather(1, own), self.margin).squeeze(1)  # -α (s - δ)
            repulsion = (self.alpha * self.distance.margin(-self.margin, cosine)).scatter(1, own, -torch.inf)
            if indices_tuple is not None:
                weights = appearance_weights(indices_tuple, len(cosine)).to(cosine) - 1
                attraction, repulsion = attraction + weights, repulsion + weights.unsqueeze(1)
            # log(1 + Σ exp(z)) is softplus of the log-sum-exp: nothing overflows, and an empty sum gives log 1 = 0
            positive = F.softplus(grouped_logsumexp(attraction, labels, self.num_classes))
            negative = F.softplus(repulsion.logsumexp(dim=0))
        present = labels.new_zeros(self.num_classes).scatter(0, labels, 1).sum()
        loss_dict = {
            "pos_loss": elements(positive, divisor=present),
            "neg_loss": elements(negative, divisor=self.num_classes),
        }
        self.add_weight_regularization(loss_dict, self.proxies)
        return loss_dict

    def get_logits(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Cosine similarity of embeddings with all proxies.

        Args:
            embeddings: Of any norm.

        Returns:
            In [-1, 1].
        """
        check_embeddings(embeddings, self.embedding_size)
        return self.distance(embeddings, self.proxies.to(embeddings.dtype))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.num_classes}, {self.embedding_size}, margin={self.margin:g}, alpha={self.alpha:g}"


class EmbeddingHead(nn.Module):
    """From a feature map to an embedding: average plus maximum pooling, linear, norm (as in the authors' code).

    Args:
        in_features: Channels c of the feature map.
        embedding_size: Width d of the embedding.
        normalize: Whether embeddings get unit length.

    Example:
        >>> EmbeddingHead(10, 5)(torch.randn(3, 10, 7, 7)).shape
        torch.Size([3, 5])
    """

    def __init__(self, in_features: int, embedding_size: int, normalize: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, embedding_size)
        self.normalize = normalize
        nn.init.kaiming_normal_(self.linear.weight, mode="fan_out")
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pool and project.

        Args:
            features: The backbone's last feature map.

        Returns:
            Embeddings.
        """
        pooled = features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))
        embedding = self.linear(pooled)
        return _normalize(embedding) if self.normalize else embedding


class ProxyAnchorModel(nn.Module):
    """The authors' embedding network: backbone, [`EmbeddingHead`][saccade.metric.EmbeddingHead], frozen batch norm.

    Args:
        backbone: A name, `bn_inception` (the paper's) or any that timm knows, or a module that gives (b, c, h, w).
        embedding_size: Width d of the embedding.
        freeze_bn: Batch norm keeps its running statistics: it stays in eval mode also in training.
        freeze_bn_affine: Batch norm's weight and bias are not trained either. The authors' code means to freeze them,
            and trains them from the end of the warm-up on; its figures come from that, so it is the default.
        pretrained: Load ImageNet weights (timm downloads them) where `backbone` is a name.
        in_features: Channels of the backbone's output, needed where it is a module without `num_features`.
        normalize: Whether embeddings get unit length.

    Example:
        >>> model = ProxyAnchorModel("resnet18", embedding_size=64)
        >>> model(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        backbone: str | nn.Module = "bn_inception",
        embedding_size: int = 512,
        freeze_bn: bool = True,
        freeze_bn_affine: bool = False,
        pretrained: bool = False,
        in_features: int | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, channels = feature_extractor(backbone, pretrained=pretrained, in_features=in_features)
        self.head = EmbeddingHead(channels, embedding_size, normalize)
        self.freeze_bn = freeze_bn
        if freeze_bn_affine:
            for norm in self._norms():
                norm.requires_grad_(False)
        self.train(self.training)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed images.

        Args:
            images: Normalised as the backbone wants it.

        Returns:
            Embeddings.
        """
        return self.head(self.backbone(images))

    def train(self, mode: bool = True) -> ProxyAnchorModel:
        """Set the mode; frozen batch norm stays in eval mode."""
        super().train(mode)
        if self.freeze_bn:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> Iterator[nn.Module]:
        return (module for module in self.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))


def proxy_anchor_param_groups(
    model: nn.Module, loss: nn.Module, lr: float, proxy_lr_mult: float = 100.0
) -> list[dict[str, Any]]:
    """Parameter groups of the authors' recipe: the proxies learn `proxy_lr_mult` times as fast.

    Args:
        model: The network.
        loss: The loss, whose parameters are the proxies.
        lr: Learning rate of the network.
        proxy_lr_mult: Factor for the proxies.

    Returns:
        Two groups for an optimiser.

    Example:
        >>> groups = proxy_anchor_param_groups(nn.Linear(4, 2), ProxyAnchorLoss(3, 2), lr=1e-4)
        >>> [group["lr"] for group in groups]
        [0.0001, 0.01]
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"params": trained, "lr": lr}, {"params": list(loss.parameters()), "lr": lr * proxy_lr_mult}]


def _normalize(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return x * (x.square().sum(dim=1, keepdim=True) + EPS).rsqrt()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
