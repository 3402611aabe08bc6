"""Any classifier by name: torchvision's, timm's, TorchRay's, or a function of your own; nothing downloads unasked."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import timm
import torch
import torchvision
from torch import Tensor, nn

from saccade.checkpoints import StateDict, load_strict, read_state
from saccade.explain import checkpoints
from saccade.explain.excitation import WEIGHTED
from saccade.nn.backbones import timm_weights
from saccade.spelling import near_it
from saccade.surgery import find_layers

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHRAY: dict[str, Callable[[int], nn.Module]] = {
    "torchray_vgg16": checkpoints.torchray_vgg16,
    "torchray_resnet50": checkpoints.torchray_resnet50,
}


@dataclass(frozen=True)
class Classifier:
    """A model ready to be explained.

    Args:
        model: In eval mode.
        mean: Of the normalisation, for RGB in [0, 1].
        std: Of the normalisation.
        classes: Names of the classes; empty where they are not known.
        weights: What it was loaded with.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    weights: str

    def normalise(self, image: Tensor) -> Tensor:
        """From RGB in [0, 1] to what the model wants."""
        mean, std = (torch.tensor(values, dtype=image.dtype).view(3, 1, 1) for values in (self.mean, self.std))
        return (image - mean.to(image.device)) / std.to(image.device)


def load_classifier(name: str, weights: str = "default", *, download: bool = False) -> Classifier:
    """Build a classifier and fill it.

    Args:
        name: A torchvision classifier, a timm model, `torchray_vgg16`, `torchray_resnet50`, or
            `package.module:function` that takes `num_classes`.
        weights: `default`: the published ones, if they are in the local cache; `none`: random; else a checkpoint.
        download: Whether published weights may be downloaded.

    Returns:
        The classifier.

    Raises:
        FileNotFoundError: No such checkpoint.
        ValueError: An unknown name (the message has the closest), weights that would have to be downloaded, or a
            checkpoint that does not fit.
    """
    build, mean, std = _builder(name)
    classes: tuple[str, ...] = ()
    if weights == "none":
        torch.manual_seed(0)
        return Classifier(build(None).eval(), mean, std, (), "none (random)")
    if weights == "default":
        model, classes, mean, std, label = _published(name, download)
        return Classifier(model.eval(), mean, std, classes, label)
    state = read_state(weights)
    if name in TORCHRAY:
        converted = state if "fc.bias" in state and state["fc.weight"].ndim == 4 else None
        state = converted or ("classifier.6.bias" in state and state) or checkpoints.convert(state)
        return Classifier(checkpoints.from_state(state), mean, std, (), weights)
    model = build(None)
    count = _class_count(model, state)
    model = build(count) if count is not None else model
    load_strict(model, state)
    return Classifier(model.eval(), mean, std, (), weights)


def _builder(name: str) -> tuple[Callable[[int | None], nn.Module], tuple[float, ...], tuple[float, ...]]:
    """A function of the number of classes (`None`: the usual), and the normalisation."""
    if name in TORCHRAY:
        return lambda count: TORCHRAY[name](count or 20), checkpoints.MEAN, checkpoints.STD
    if ":" in name:
        function = _own(name)
        return lambda count: function() if count is None else function(num_classes=count), IMAGENET_MEAN, IMAGENET_STD
    if name in torchvision.models.list_models(module=torchvision.models):
        make = torchvision.models.get_model_builder(name)
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return (
            lambda count: make(weights=None, **extra, **({} if count is None else {"num_classes": count})),
            IMAGENET_MEAN,
            IMAGENET_STD,
        )
    if timm.is_model(name):
        config = timm.get_pretrained_cfg(name)
        mean, std = (tuple(config.mean), tuple(config.std)) if config else (IMAGENET_MEAN, IMAGENET_STD)
        return lambda count: timm.create_model(name, **({} if count is None else {"num_classes": count})), mean, std
    known = [*TORCHRAY, *torchvision.models.list_models(module=torchvision.models), *timm.list_models()]
    hint = near_it(name, known, "a torchvision or timm name, or module:function is accepted")
    raise ValueError(f"no classifier {name!r}; {hint}")


def _own(name: str) -> Callable[..., nn.Module]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no model at {name!r}: {error}") from None


def _published(
    name: str, download: bool
) -> tuple[nn.Module, tuple[str, ...], tuple[float, ...], tuple[float, ...], str]:
    if name in TORCHRAY or ":" in name:
        raise ValueError(f"{name} has no published weights to load by name: give --weights FILE, or --weights none")
    if name in torchvision.models.list_models(module=torchvision.models):
        entry = torchvision.models.get_model_weights(name).DEFAULT
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(entry.url).path).name
        size = entry.meta.get("_file_size")
        _may_load(name, path.is_file(), download, f"{size:.0f} MB" if size else "size unknown", "download.pytorch.org")
        transform = entry.transforms()
        model = torchvision.models.get_model(name, weights=entry)
        return model, tuple(entry.meta["categories"]), tuple(transform.mean), tuple(transform.std), str(entry)
    config = timm.get_pretrained_cfg(name)
    source, cached = timm_weights(name)
    if config is None or source is None:
        raise ValueError(f"timm publishes no weights for {name}: give --weights FILE, or --weights none")
    _may_load(name, cached, download, "size unknown", source)
    model = timm.create_model(name, pretrained=True)
    return model, (), tuple(config.mean), tuple(config.std), f"timm, {source}"


def _may_load(name: str, cached: bool, download: bool, size: str, source: str) -> None:
    if not cached and not download:
        raise ValueError(
            f"the published weights of {name} are not in the local cache and would have to be downloaded "
            f"({size}, from {source}): add --download, or give --weights none or a checkpoint file"
        )


def _class_count(model: nn.Module, state: StateDict) -> int | None:
    """The checkpoint's number of classes, where its last layer is of another size than the model's."""
    name = list(find_layers(model, WEIGHTED))[-1]
    own, theirs = model.state_dict()[f"{name}.weight"], state.get(f"{name}.weight")
    return None if theirs is None or len(own) == len(theirs) else len(theirs)
