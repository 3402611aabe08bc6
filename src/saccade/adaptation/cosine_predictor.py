"""The classifier of semi-supervised adaptation: a linear layer, unit length, class vectors, a low temperature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from saccade.adaptation.networks import Classifier, timm_classifier


class CosinePredictor(nn.Module):
    """Features to logits by their direction (arXiv:1904.06487, section 3.1; used by arXiv:2007.12684).

    A linear layer, l2 normalisation, one vector a class without bias, division by a temperature. The class vectors are
    not normalised. From the normalisation on the computation is in float32, also under autocast: at a temperature of
    0.05 a logit of 10 would be off by 0.03 in bfloat16.

    Args:
        in_features: Width of the features.
        num_classes: Number of classes k, at least 2.
        hidden: Width of the normalised layer.
        temperature: Above 0; the lower, the more confident.

    Raises:
        ValueError: A width below 1, fewer than 2 classes, or a temperature that is not positive.

    Example:
        >>> CosinePredictor(8, 3)(torch.randn(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_features: int, num_classes: int, hidden: int = 512, temperature: float = 0.05) -> None:
        super().__init__()
        if in_features < 1 or hidden < 1 or num_classes < 2:
            raise ValueError(
                f"in_features is {in_features}, hidden {hidden} and num_classes {num_classes}; "
                "at least 1, 1 and 2 are accepted"
            )
        if not 0.0 < temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; a finite number above 0 is accepted")
        self.temperature = temperature
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, num_classes, bias=False)
        nn.init.xavier_normal_(self.fc1.weight)
        nn.init.zeros_(self.fc1.bias)
        nn.init.xavier_normal_(self.fc2.weight)

    def forward(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logits, in float32 or wider.

        Args:
            features: Of the backbone, pooled.

        Returns:
            Logits.
        """
        hidden = self.fc1(features)
        with torch.autocast(hidden.device.type, enabled=False):
            wide = hidden if hidden.dtype == torch.float64 else hidden.float()
            return F.linear(F.normalize(wide), self.fc2.weight.to(wide.dtype)) / self.temperature

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"temperature={self.temperature:g}"


def ceil_pooling(body: nn.Module) -> nn.Module:
    """Give a ResNet the older pooling of its stem, in place: 3 x 3, stride 2, no padding, sizes rounded up.

    The authors' ResNet has it. Feature maps keep their sizes, their grid lies half a pixel off.

    Args:
        body: With a module `maxpool`, as timm's and torchvision's ResNets have.

    Returns:
        The same network.

    Raises:
        ValueError: It has no `maxpool`.
    """
    if not isinstance(getattr(body, "maxpool", None), nn.Module):
        raise ValueError(f"{type(body).__name__} has no module `maxpool`; a ResNet of timm or torchvision is accepted")
    body.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    return body


def cosine_classifier(
    name: str = "resnet34",
    num_classes: int = 126,
    pretrained: bool = False,
    ceil_pool: bool = True,
    hidden: int = 512,
    temperature: float = 0.05,
) -> Classifier:
    """A backbone of timm with a [`CosinePredictor`][saccade.adaptation.CosinePredictor], as MiCo's authors train it.

    Args:
        name: As timm knows it.
        num_classes: Classes.
        pretrained: Start from timm's weights, which are downloaded where they are not in the cache.
        ceil_pool: The older pooling of the stem, see `ceil_pooling`; only for ResNets.
        hidden: Width of the normalised layer.
        temperature: Divides the logits.

    Returns:
        The classifier.

    Example:
        >>> cosine_classifier("resnet18", 5)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5])
    """
    plain = timm_classifier(name, num_classes, pretrained)
    body = ceil_pooling(plain.body) if ceil_pool else plain.body
    head = CosinePredictor(plain.in_features, num_classes, hidden, temperature)
    return Classifier(body, head, plain.in_features, num_classes)
