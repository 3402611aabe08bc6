"""The small embedding network of the claims."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from saccade.nn.convnet import ConvNet


class SmallEmbedding(nn.Module):
    """Four convolutional blocks and a linear layer over all positions, for small grey images.

    Args:
        image_size: Side of the images.
        embedding_size: Width of the embedding.
        width: Channels of every block.
        pooled: How many of the blocks halve the resolution.

    Example:
        >>> import torch
        >>> SmallEmbedding(28)(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 64])
    """

    def __init__(self, image_size: int = 28, embedding_size: int = 64, width: int = 32, pooled: int = 3) -> None:
        super().__init__()
        self.backbone = ConvNet(1, width, blocks=4, pooled=pooled)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * (image_size >> pooled) ** 2, embedding_size))

    def forward(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings, not normalised."""
        return self.head(self.backbone(images))
