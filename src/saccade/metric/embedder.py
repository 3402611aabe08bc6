"""Any network as a function from an image file to an embedding: a checkpoint of ours, or a timm model by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from jaxtyping import Float
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image, ImageOps
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.checkpoints import load_strict, read_state, read_torch
from saccade.metric.task import MetricLearning
from saccade.nn.backbones import timm_weights
from saccade.spelling import near_it
from saccade.training.cli import EMBEDDED, load_task
from saccade.training.data import DataModule
from saccade.training.recipes import find_recipe
from saccade.training.task import Task

CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class ModelSpec:
    """How to make an embedder again.

    Args:
        model: A timm name, or a checkpoint file.
        weights: Of a timm model: `default` (the published ones), `none` (random) or a file.
        config: The recipe of a checkpoint that holds weights alone.
    """

    model: str
    weights: str = "default"
    config: str | None = None

    def __str__(self) -> str:
        if Path(self.model).suffix in CHECKPOINTS:
            return self.model + (f" of {self.config}" if self.config else "")
        return f"{self.model}, weights {self.weights}"


class Embedder:
    """A network with the transform that it wants.

    Args:
        network: Images to embeddings (b, d).
        transform: From a PIL image in RGB to a tensor (c, h, w).
        spec: How it was made.
        device: Where to compute.

    Attributes:
        fingerprint: Of weights and transform: embeddings of two networks are not compared with each other.
    """

    def __init__(
        self,
        network: nn.Module,
        transform: Callable[[Any], Tensor],
        spec: ModelSpec,
        device: torch.device | str = "cpu",
    ) -> None:
        # convolutions run faster with channels last, above all those of one image on a CPU
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.transform = transform
        self.spec = spec
        self.device = torch.device(device)
        self.fingerprint = _fingerprint(network, transform)

    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "b c h w"], normalize: bool = False) -> Float[Tensor, "b d"]:
        """Embeddings of transformed images, in float32, on the CPU.

        Args:
            images: As the transform gives them.
            normalize: Bring them to unit length.

        Returns:
            One row an image.

        Raises:
            ValueError: The network gives something else than one row an image.
        """
        found = self.network(images.to(self.device, memory_format=torch.channels_last))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{self.spec} gives {what} for {len(images)} images; one vector an image is wanted")
        found = found.float().cpu()
        return F.normalize(found, dim=1) if normalize else found


def read_image(path: str | Path) -> Image.Image:
    """An image file in RGB, turned as its camera held it.

    Args:
        path: The file.

    Returns:
        The image, decoded.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be decoded; the message says why.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no image at {path}")
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # decoders raise whatever their format's parser raises
        reason = " ".join(str(error).split()).replace(f" {str(path)!r}", "") or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image: {reason}") from None


def load_embedder(spec: ModelSpec, *, download: bool = False, device: torch.device | str = "cpu") -> Embedder:
    """Build an embedder.

    Args:
        spec: Which network, and with which weights.
        download: Whether published weights may be downloaded.
        device: Where to compute.

    Returns:
        The embedder.

    Raises:
        FileNotFoundError: No such checkpoint or recipe.
        ValueError: An unknown name (the message has the nearest), a checkpoint that does not fit or does not embed, or
            weights that would have to be downloaded.

    Example:
        >>> embedder = load_embedder(ModelSpec("resnet18", weights="none"))
        >>> image = embedder.transform(Image.new("RGB", (300, 200)))
        >>> embedder(image[None]).shape
        torch.Size([1, 512])
    """
    if Path(spec.model).suffix in CHECKPOINTS:
        network, transform = _from_checkpoint(spec)
    else:
        if spec.config is not None:
            raise ValueError(f"a recipe is given, but {spec.model} is no checkpoint file ({', '.join(CHECKPOINTS)})")
        network, transform = _from_timm(spec, download)
    return Embedder(network, transform, spec, device)


def _from_timm(spec: ModelSpec, download: bool) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    if not timm.is_model(spec.model):
        hint = near_it(spec.model, timm.list_models(), f"a timm name or a file {'|'.join(CHECKPOINTS)} is accepted")
        raise ValueError(f"no model {spec.model!r}; {hint}")
    if spec.weights == "default":
        source, cached = timm_weights(spec.model)
        if source is None:
            raise ValueError(f"timm publishes no weights for {spec.model}: give --weights FILE or --weights none")
        if not cached and not download:
            raise ValueError(
                f"the published weights of {spec.model} are not in the local cache and would have to be downloaded "
                f"(from {source}): add --download, or give --weights none or a file"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # without weights the network is random, and the same each time
        model = timm.create_model(spec.model, pretrained=spec.weights == "default", num_classes=0)
    if spec.weights not in ("default", "none"):
        about: Any = model.default_cfg
        classifier = about.get("classifier") or "fc"
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        state = read_state(spec.weights)
        load_strict(model, {k: v for k, v in state.items() if not k.startswith(tuple(f"{head}." for head in heads))})
    return model, create_transform(**resolve_model_data_config(model), is_training=False)


def _from_checkpoint(spec: ModelSpec) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    if spec.config is None:
        if Path(spec.model).suffix == ".safetensors" and Path(spec.model).is_file():
            raise ValueError(f"{spec.model} holds weights alone: name its network with --config RECIPE")
        task = load_task(spec.model)
        content: Any = read_torch(spec.model)
        recipe, origin = yaml.safe_load(content[EMBEDDED]), spec.model
    else:
        state = read_state(spec.model)
        _, file = find_recipe(spec.config)
        recipe, origin = yaml.safe_load(file.read_text(encoding="utf-8")), str(file)
        if not isinstance(recipe, dict) or "model" not in recipe:
            raise ValueError(f"{file} is not a recipe: it has no 'model'")
        task = _build(Task, "model", recipe["model"], origin)
        if isinstance(task, MetricLearning):
            load_strict(task.model, {key.removeprefix("model."): value for key, value in state.items()})
    if not isinstance(task, MetricLearning):
        raise ValueError(f"{spec.model} belongs to the task {type(task).__name__}, which does not embed images")
    if not isinstance(recipe.get("data"), Mapping):
        raise ValueError(f"{origin} names no data module, so it is not known how its images are prepared")
    data = _build(DataModule, "data", recipe["data"], origin)
    transform = getattr(data, "test_transform", None)
    if transform is None:
        raise ValueError(f"{origin}: {type(data).__name__} does not say how an image file is prepared")
    return task.model, transform


def _build(base: type, key: str, configuration: Any, origin: str) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, key, instantiate=True)
    try:
        return parser.instantiate_classes(parser.parse_object({key: configuration}))[key]
    except ArgumentError as error:
        raise ValueError(f"the {key} of {origin} cannot be built here: {error}") from None


def _fingerprint(network: nn.Module, transform: Callable[[Any], Tensor]) -> str:
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(transform)).encode())
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]
