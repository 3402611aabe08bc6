"""The networks of the DSBN paper with the state-dict keys of its authors: LeNet for digits, ResNets for photographs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.models.resnet import BasicBlock, Bottleneck

from saccade.adaptation.adversary import DomainDiscriminator
from saccade.adaptation.dsbn import convert_dsbn
from saccade.nn.torchvision_weights import load_backbone
from saccade.nn.video_resnet import LAYERS

RESNETS: dict[str, tuple[Any, Sequence[int]]] = {**LAYERS, "resnet152": ("bottleneck", (3, 8, 36, 3))}


class DSBNNetwork(nn.Module, ABC):
    """A classifier in two halves, as `Classifier`, whose keys are the authors'.

    Attributes:
        in_features: Width of the features.
        num_classes: Classes.
    """

    in_features: int
    num_classes: int

    @abstractmethod
    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features of images, which `head` classifies."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """Features to logits."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of images; once converted, a call takes `domain=` too."""
        return self.head(self.features(images))


class LeNet(DSBNNetwork):
    """The digit network of the paper: two 5x5 convolutions with batch norm, two or three linear layers.

    Args:
        num_classes: Classes.
        in_features: 0: the 500 hidden units are the features; else the width of one more linear layer, without
            activation, that gives them.
        channels: Of the images, which are 28 x 28.

    Raises:
        ValueError: Fewer than 2 classes, a negative width, images of another size.

    Example:
        >>> LeNet()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 10, in_features: int = 0, channels: int = 1) -> None:
        super().__init__()
        check_sizes(num_classes, in_features)
        self.num_classes = num_classes
        self.in_features = in_features or 500
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.bn1 = nn.BatchNorm2d(20)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.bn2 = nn.BatchNorm2d(50)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, in_features or num_classes)
        self.fc3 = nn.Linear(in_features, num_classes) if in_features else None
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.weight.normal_(0.0, 0.01).clamp_(-0.02, 0.02)
                    module.bias.zero_()  # type: ignore[union-attr]

    @property
    def head(self) -> nn.Module:
        """Features to logits."""
        return self.fc2 if self.fc3 is None else self.fc3

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features of images."""
        if images.shape[2:] != (28, 28) or images.shape[1] != self.conv1.in_channels:
            raise ValueError(f"images are {tuple(images.shape)}; (b, {self.conv1.in_channels}, 28, 28) is accepted")
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return x if self.fc3 is None else self.fc2(x)


class ResNet(DSBNNetwork):
    """A ResNet in torchvision's layout, with one linear layer behind it, or two.

    Args:
        block: `basic` or `bottleneck`.
        layers: Blocks in each of the four stages.
        num_classes: Classes.
        in_features: 0: the pooled activations are the features and `fc` classifies them; else `fc1` gives features of
            that width, without activation, and `fc2` classifies.

    Raises:
        ValueError: Fewer than 2 classes, a negative width, another number of stages.

    Example:
        >>> ResNet("basic", (1, 1, 1, 1), 5, in_features=16)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self, block: Literal["basic", "bottleneck"], layers: Sequence[int], num_classes: int, in_features: int = 0
    ) -> None:
        super().__init__()
        check_sizes(num_classes, in_features)
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers is {tuple(layers)}; four stages of at least one block are accepted")
        self.num_classes = num_classes
        trunk = torchvision.models.ResNet(BasicBlock if block == "basic" else Bottleneck, list(layers))
        self.conv1, self.bn1 = trunk.conv1, trunk.bn1
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        channels = trunk.fc.in_features
        self.fc: nn.Linear | None = None
        if in_features:
            self.fc1 = nn.Linear(channels, in_features)
            self.fc2 = nn.Linear(in_features, num_classes)
        else:
            self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
        self.in_features = in_features or channels

    @property
    def head(self) -> nn.Module:
        """Features to logits."""
        return self.fc2 if self.fc is None else self.fc

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features of images."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))
        return self.fc1(x) if self.fc is None else x


def check_sizes(num_classes: int, in_features: int) -> None:
    """Check what both networks are told.

    Raises:
        ValueError: Fewer than 2 classes, a negative width.
    """
    if num_classes < 2 or in_features < 0:
        raise ValueError(f"num_classes is {num_classes}, in_features {in_features}; at least 2, and 0, are accepted")


def dsbn_lenet(num_classes: int = 10, num_domains: int = 2, in_features: int = 0, channels: int = 1) -> DSBNNetwork:
    """A LeNet with domain-specific batch norm.

    Args:
        num_classes: Classes.
        num_domains: Sources and targets together.
        in_features: See `LeNet`.
        channels: Of the images.

    Returns:
        The network, whose calls take `domain=`.

    Example:
        >>> dsbn_lenet(num_domains=3)(torch.zeros(2, 1, 28, 28), domain=2).shape
        torch.Size([2, 10])
    """
    return convert_dsbn(LeNet(num_classes, in_features, channels), num_domains)  # type: ignore[return-value]


def dsbn_resnet(
    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet50",
    num_classes: int = 31,
    num_domains: int = 2,
    in_features: int = 0,
    pretrained: bool = False,
    sync: bool = False,
    domain_specific: bool = True,
) -> DSBNNetwork:
    """A ResNet with domain-specific batch norm.

    Args:
        name: Its depth.
        num_classes: Classes.
        num_domains: Sources and targets together.
        in_features: See `ResNet`.
        pretrained: Start from torchvision's ImageNet weights, which are downloaded where they are not in the cache;
            every branch starts as a copy of their batch norm.
        sync: Whether statistics are taken over all processes.
        domain_specific: Off: plain batch norms that the domains share, the baseline.

    Returns:
        The network, whose calls take `domain=`.

    Raises:
        ValueError: Another name.

    Example:
        >>> dsbn_resnet("resnet18")(torch.zeros(2, 3, 32, 32), domain=1).shape
        torch.Size([2, 31])
    """
    if name not in RESNETS:
        raise ValueError(f"name is {name!r}; {', '.join(RESNETS)} are accepted")
    network = ResNet(*RESNETS[name], num_classes, in_features)
    if pretrained:
        state = get_model(name, weights="IMAGENET1K_V1").state_dict()
        load_backbone(network, {k: v for k, v in state.items() if not k.startswith("fc.")}, ("fc1.", "fc2."))
    if domain_specific:
        convert_dsbn(network, num_domains, sync=sync)
    return network


def dsbn_discriminator(in_features: int, kind: Literal["digits", "photos", "cpua"] = "photos") -> DomainDiscriminator:
    """A discriminator of the paper; the authors' keys `discriminator.N.*` are ours without that prefix.

    Args:
        in_features: Width of what it sees.
        kind: `digits` 500-500-1; `photos` 1024-1024-1 with dropout of 0.5; `cpua` 1024-1024-1 without.

    Returns:
        Features to one logit.

    Raises:
        ValueError: Another kind.

    Example:
        >>> dsbn_discriminator(10, "digits")(torch.zeros(2, 10)).shape
        torch.Size([2, 1])
    """
    if kind == "digits":
        return DomainDiscriminator(in_features, 500, 0.0)
    if kind not in ("photos", "cpua"):
        raise ValueError(f"kind is {kind!r}; digits, photos and cpua are accepted")
    return DomainDiscriminator(in_features, 1024, 0.5 if kind == "photos" else 0.0, wide_start=True)
