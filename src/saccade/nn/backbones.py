"""Image backbones by name: timm's, and those that timm has not."""

from __future__ import annotations

import difflib

import timm
from torch import nn

from saccade.nn.bn_inception import BNInception


def feature_extractor(
    backbone: str | nn.Module, *, pretrained: bool = False, in_features: int | None = None
) -> tuple[nn.Module, int]:
    """A network that gives a feature map, and the number of its channels.

    Args:
        backbone: `bn_inception`, a name that timm knows, or a module that gives (b, c, h, w).
        pretrained: Load timm's ImageNet weights; timm downloads them.
        in_features: Channels of a module that has no `num_features`.

    Returns:
        Module and channels.

    Raises:
        ValueError: Unknown name (the nearest are listed), or a module whose channels are not known.

    Example:
        >>> network, channels = feature_extractor("resnet18")
        >>> channels
        512
    """
    if isinstance(backbone, nn.Module):
        channels = in_features or getattr(backbone, "num_features", None)
        if not isinstance(channels, int):
            raise ValueError(f"{type(backbone).__name__} has no num_features: give in_features, its output channels")
        return backbone, channels
    if backbone == "bn_inception":
        if pretrained:
            raise ValueError("bn_inception has no weights to download: convert a checkpoint and load it")
        network = BNInception()
        return network, network.num_features
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, ["bn_inception", *timm.list_models()], n=3)
        raise ValueError(f"no backbone {backbone!r}" + (f"; near it: {', '.join(near)}" if near else ""))
    model = timm.create_model(backbone, pretrained=pretrained, num_classes=0, global_pool="")
    channels = model.num_features
    if not isinstance(channels, int):
        raise ValueError(f"{backbone} does not say how many channels it gives")
    return model, channels
