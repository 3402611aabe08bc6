r"""Log-ratio loss: distances in the embedding space that follow continuous labels.

Most losses for embeddings know two answers, same class or not. Poses, room layouts and captions have degrees: two
pictures of people are more or less alike in pose. The log-ratio loss (Kim et al., CVPR 2019) asks that ratios of
distances between embeddings equal ratios of distances between labels. For an anchor a and two neighbours i, j,

$$\ell(a, i, j) = \Big( \log \frac{\lVert f_a - f_i \rVert}{\lVert f_a - f_j \rVert}
                      - \log \frac{D(y_a, y_i)}{D(y_a, y_j)} \Big)^2.$$

There is no margin and no threshold that would turn degrees into classes, and embeddings are not normalised: unit length
would bound their distances, label distances have no bound. The triplets are *dense*: all pairs of neighbours of an
anchor. A batch is an anchor, its nearest by label, and others drawn at random
([`dense_neighbour_batches`][saccade.metric.dense_neighbour_batches]).

Written with $u_i = \log \lVert f_a - f_i \rVert - \log D(y_a, y_i)$, a triplet costs $(u_i - u_j)^2$, so that the mean
over all pairs is twice the variance of the $u_i$: the loss takes O(m d) for m neighbours where the authors' code builds
three m x m matrices. Every row of a batch can also serve as the anchor at once.

    loss = LogRatioLoss()
    for batch in dense_neighbour_batches(poses, batch_size=150):     # an epoch: every sample is the anchor once
        embeddings = model(images[batch])
        loss(embeddings, label_distances[batch[0], batch[1:]]).backward()
    loss(model(images), poses)                                       # or: every row of any batch as the anchor
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.metric.label_distances import EXACT, check_single, others, squared_to_first, to_anchors
from saccade.nn.backbones import feature_extractor


class LogRatioLoss(nn.Module):
    r"""Log-ratio loss over all triplets of an anchor (arXiv:1904.09626), or of every row of a batch.

    Distances are Euclidean, as in the authors' code; the paper squares both sides, which doubles the logarithms and so
    multiplies the loss by four. The computation is in float32, also under autocast.

    Args:
        eps: Added to both distances inside the logarithms, at least 0.
        distance_eps: Added to squared embedding distances, a floor for the gradient of the root; 1e-4 / d where `None`.

    Raises:
        ValueError: A number below 0.

    Example:
        >>> loss = LogRatioLoss()
        >>> embeddings, distances = torch.randn(31, 32), torch.rand(30) + 0.1
        >>> loss(embeddings, distances).shape  # row 0 is the anchor
        torch.Size([])
        >>> labels = torch.randn(31, 8)
        >>> loss(embeddings, labels).shape  # every row is the anchor once
        torch.Size([])
    """

    def __init__(self, eps: float = 1e-6, distance_eps: float | None = None) -> None:
        super().__init__()
        for name, value in (("eps", eps), ("distance_eps", 0.0 if distance_eps is None else distance_eps)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; a finite number of 0 or above is accepted")
        self.eps = eps
        self.distance_eps = distance_eps

    def forward(
        self,
        embeddings: Float[Tensor, "n d"],
        targets: Float[Tensor, ...],
        anchors: Int[Tensor, " a"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over anchors and over all pairs of their neighbours.

        Args:
            embeddings: Of any norm.
            targets: Label distances to row 0, (n - 1,), in any order; or of all pairs of rows, (n, n); or labels,
                (n, k) with k other than n, whose Euclidean distances are taken. No gradient flows into them.
            anchors: With one of the latter two: rows that serve as anchors; all where `None`.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: Shapes that disagree, fewer than 2 neighbours, a label distance that is negative or not finite.
            TypeError: Not floating point.
        """
        if targets.ndim == 1:
            check_single(embeddings, targets, anchors)
        else:
            rows, labels = to_anchors(embeddings, targets, anchors)
        with torch.autocast(embeddings.device.type, enabled=False):
            x = _wide(embeddings)
            floor = 1e-4 / x.shape[1] if self.distance_eps is None else self.distance_eps
            if targets.ndim == 1:
                squared = squared_to_first(x)
                u = self._log((squared + floor).sqrt()) - self._log(targets.detach().to(x))
                return 2 * u.var()
            squared = torch.cdist(x[rows], x, compute_mode=EXACT).square()
            among = others(rows, len(x))
            # the anchor itself is left out; its own distances, which could be 0, are replaced before the logarithms
            e, g = (distances.masked_fill(~among, 1.0) for distances in (squared + floor, labels.to(x)))
            u = self._log(e.sqrt()) - self._log(g)  # 0 for the anchor itself
            count = len(x) - 1
            mean = u.sum(dim=1, keepdim=True) / count
            deviation = (u - mean).masked_fill(~among, 0.0)
            return 2 * deviation.square().sum(dim=1).mean() / (count - 1)

    def _log(self, distance: Tensor) -> Tensor:
        return (distance + self.eps).log()

    def extra_repr(self) -> str:
        """What `print` shows."""
        own = "1e-4/d" if self.distance_eps is None else f"{self.distance_eps:g}"
        return f"eps={self.eps:g}, distance_eps={own}"


class LogRatioModel(nn.Module):
    """The authors' embedding network: ResNet, average pooling, a linear layer, no norm.

    Args:
        backbone: A name that timm knows, `resnet34` in the paper, or a module that gives (b, c, h, w).
        embedding_size: Width d of the embedding.
        pretrained: Load ImageNet weights (timm downloads them) where `backbone` is a name.
        in_features: Channels of the backbone's output, needed where it is a module without `num_features`.
        normalize: Whether embeddings get unit length, as the triplet losses want it.

    Example:
        >>> model = LogRatioModel("resnet18", embedding_size=16)
        >>> model(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet34",
        embedding_size: int = 128,
        pretrained: bool = False,
        in_features: int | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, channels = feature_extractor(backbone, pretrained=pretrained, in_features=in_features)
        self.head = nn.Linear(channels, embedding_size)
        self.normalize = normalize
        nn.init.kaiming_normal_(self.head.weight, mode="fan_out")
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed images.

        Args:
            images: Normalised as the backbone wants it.

        Returns:
            Embeddings.
        """
        embedding = self.head(self.backbone(images).mean(dim=(2, 3)))
        return nn.functional.normalize(embedding, dim=1) if self.normalize else embedding


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
