"""Proxy-NCA: the proxy loss that Proxy Anchor is compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.metric.inputs import check_embeddings, check_labels


class ProxyNCALoss(nn.Module):
    r"""Proxy-NCA (Movshovitz-Attias et al., arXiv:1703.07464) with the own proxy in the denominator.

    Cross-entropy over $-\text{scale} \cdot \lVert x - p \rVert^2$ of normalised embeddings and proxies.

    Args:
        num_classes: Number of classes C; labels are 0 to C - 1.
        embedding_size: Width d of the embeddings.
        softmax_scale: Factor of the negative squared distance, above 0.

    Attributes:
        proxies: One learnable vector a class, (C, d), drawn from N(0, 1).

    Raises:
        ValueError: A size below 1, or a scale that is not positive.

    Example:
        >>> loss = ProxyNCALoss(num_classes=10, embedding_size=32)
        >>> loss(torch.randn(16, 32), torch.randint(10, (16,))).shape
        torch.Size([])
    """

    def __init__(self, num_classes: int, embedding_size: int, softmax_scale: float = 1.0) -> None:
        super().__init__()
        if num_classes < 1 or embedding_size < 1:
            raise ValueError(
                f"num_classes and embedding_size are {num_classes} and {embedding_size}; both must be >= 1"
            )
        if not softmax_scale > 0:
            raise ValueError(f"softmax_scale is {softmax_scale}; a number above 0 is accepted")
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.softmax_scale = softmax_scale
        self.proxies = nn.Parameter(torch.randn(num_classes, embedding_size))

    def forward(self, embeddings: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The loss of a batch, the mean over its samples.

        Args:
            embeddings: Of any norm.
            labels: In [0, C).

        Returns:
            A scalar.
        """
        check_embeddings(embeddings, self.embedding_size)
        check_labels(labels, len(embeddings), self.num_classes)
        with torch.autocast(embeddings.device.type, enabled=False):
            x, p = F.normalize(embeddings.to(self.proxies.dtype), dim=1), F.normalize(self.proxies, dim=1)
            return F.cross_entropy(2 * self.softmax_scale * (x @ p.T), labels)  # -|x - p|² = 2 x·p - 2
