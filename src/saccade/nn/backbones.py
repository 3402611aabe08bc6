"""Image backbones by name: timm's, and those that timm has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from torch import nn

from saccade.nn.bn_inception import BNInception
from saccade.spelling import near_it


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
    model = timm_model(backbone, pretrained=pretrained, num_classes=0, global_pool="")
    channels = model.num_features
    if not isinstance(channels, int):
        raise ValueError(f"{backbone} does not say how many channels it gives")
    return model, channels


def timm_model(name: str, **options: Any) -> nn.Module:
    """A model of timm.

    Args:
        name: As timm knows it, such as `resnet50`.
        **options: Of `timm.create_model`.

    Returns:
        The model.

    Raises:
        ValueError: timm does not know the name (the nearest are listed).

    Example:
        >>> timm_model("resnet18", num_classes=0).num_features
        512
    """
    if not timm.is_model(name):
        hint = near_it(name, timm.list_models(), "timm.list_models() gives the names")
        raise ValueError(f"timm has no model {name!r}; {hint}")
    return timm.create_model(name, **options)


def timm_weights(name: str) -> tuple[str | None, bool]:
    """Where timm's weights of a model come from, and whether they are in the local cache.

    Args:
        name: A name that timm knows.

    Returns:
        The source, `None` where no weights are published; and whether nothing has to be downloaded.

    Example:
        >>> timm_weights("resnet18")[0]
        'timm/resnet18.a1_in1k'
    """
    config = timm.get_pretrained_cfg(name)
    hub, url = (getattr(config, "hf_hub_id", None), getattr(config, "url", None)) if config else (None, None)
    if hub:
        from huggingface_hub import try_to_load_from_cache

        files = ("model.safetensors", "pytorch_model.bin")
        return str(hub), any(isinstance(try_to_load_from_cache(hub, file), str) for file in files)
    if url:
        return str(url), (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name).is_file()
    return None, False
