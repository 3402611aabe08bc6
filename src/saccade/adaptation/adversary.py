"""Domain discriminators, the reversal of gradients, and conditioning on predictions."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function


class _Reverse(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return -ctx.strength * grads[0], None


class GradientReversal(nn.Module):
    """The identity, whose gradient is multiplied by -lambda (DANN, arXiv:1505.07818, section 4.2).

    Args:
        lambda_: Strength, in [0, 1].

    Raises:
        ValueError: `lambda_` is outside.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> GradientReversal(0.5)(x).sum().backward()
        >>> x.grad
        tensor([-0.5000, -0.5000])
    """

    def __init__(self, lambda_: float = 1.0) -> None:
        super().__init__()
        self.set_lambda(lambda_)

    def set_lambda(self, lambda_: float) -> None:
        """Another strength, as the schedule goes on."""
        if not 0.0 <= lambda_ <= 1.0:
            raise ValueError(f"lambda_ is {lambda_}; 0 to 1 is accepted")
        self.lambda_ = lambda_

    def forward(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """X itself."""
        return _Reverse.apply(x, self.lambda_)


class DomainDiscriminator(nn.Sequential):
    """Features to one logit: source or target. Which of the two is 1 is the method's convention.

    Linear weights start as N(0, 0.01) clamped to +-0.02, biases at 0; with `wide_start`, as DSBN's discriminators for
    photographs, the last layer as N(0, 0.3) clamped to +-0.6.

    Args:
        in_features: Width of the features.
        hidden: Width of each hidden layer.
        dropout: After each hidden layer.
        layers: Hidden layers.
        wide_start: See above.

    Example:
        >>> DomainDiscriminator(8)(torch.zeros(3, 8)).shape
        torch.Size([3, 1])
    """

    def __init__(
        self, in_features: int, hidden: int = 1024, dropout: float = 0.5, layers: int = 2, wide_start: bool = False
    ) -> None:
        if min(in_features, hidden, layers) < 1 or not 0.0 <= dropout < 1.0:
            raise ValueError(
                f"in_features {in_features}, hidden {hidden} and layers {layers} must be at least 1, "
                f"dropout {dropout} in [0, 1)"
            )
        modules: list[nn.Module] = []
        for width in [in_features, *[hidden] * (layers - 1)]:
            modules += [nn.Linear(width, hidden), nn.ReLU(inplace=True)]
            if dropout:
                modules.append(nn.Dropout(dropout))
        super().__init__(*modules, nn.Linear(hidden, 1))
        with torch.no_grad():
            for layer in self:
                if isinstance(layer, nn.Linear):
                    std = 0.3 if wide_start and layer.out_features == 1 else 0.01
                    layer.weight.copy_((torch.randn_like(layer.weight) * std).clamp_(-2 * std, 2 * std))
                    layer.bias.zero_()


class PredictionConditioning(nn.Module):
    """Features and class probabilities to their outer product (CDAN, arXiv:1705.10667, section 3.2).

    Above `most` values a random multilinear map of that width takes the product's place: R_f f * R_g g / sqrt(most).

    Args:
        features: Width of the features.
        classes: Number of classes.
        most: Largest width of the plain outer product.

    Attributes:
        out_features: Width of the result.

    Example:
        >>> PredictionConditioning(8, 3)(torch.zeros(2, 8), torch.zeros(2, 3)).shape
        torch.Size([2, 24])
    """

    def __init__(self, features: int, classes: int, most: int = 4096) -> None:
        super().__init__()
        self.random = features * classes > most
        self.out_features = most if self.random else features * classes
        if self.random:
            self.register_buffer("feature_map", torch.randn(features, most))
            self.register_buffer("class_map", torch.randn(classes, most))

    def forward(self, features: Float[Tensor, "b d"], logits: Float[Tensor, "b k"]) -> Float[Tensor, "b m"]:
        """The discriminator's input; no gradient flows through the probabilities."""
        probabilities = logits.detach().softmax(1)
        if self.random:
            maps: Any = self.feature_map, self.class_map
            return (features @ maps[0]) * (probabilities @ maps[1]) / self.out_features**0.5
        return torch.einsum("bd,bk->bkd", features, probabilities).flatten(1)
