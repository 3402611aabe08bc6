"""Any model by name: a recipe's, one of a dotted path with arguments, or timm's; and blocks put into it."""

from __future__ import annotations

import importlib
import inspect
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor, nn

from saccade.nn.input_spec import InputSpec
from saccade.nn.on_clips import OnClips, OnTokens
from saccade.nn.video_vit import VideoTransformer
from saccade.spelling import near_it
from saccade.surgery import insert_after
from saccade.training.recipes import find_recipe, recipes
from saccade.training.task import Task


def build_model(name: str, arguments: Sequence[str] = ()) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: A recipe (`domain/name` or a YAML file), whose network is built; the dotted path of a class or function,
            such as `saccade.nn.x3d.x3d_s`; or a name that timm knows.
        arguments: `key=value` for the class, the function or `timm.create_model`, values in YAML; a value such as
            `{class_path: torch.nn.ReLU, init_args: {}}` is built first.

    Returns:
        The model.

    Raises:
        ValueError: Unknown name, or arguments that do not fit.

    Example:
        >>> build_model("torch.nn.Linear", ["in_features=2", "out_features=3"])
        Linear(in_features=2, out_features=3, bias=True)
    """
    if name in recipes() or name.endswith((".yaml", ".yml")):
        if arguments:
            raise ValueError(f"{name} is a recipe and takes no arguments, not {arguments[0]!r}")
        return _recipe_model(name)
    settings = _settings(arguments)
    if timm.is_model(name):
        return _called(timm.create_model, name, {"model_name": name, "pretrained": False, **settings})
    if "." not in name:
        hint = near_it(name, timm.list_models(), "a recipe, a dotted path, or a model of timm is accepted")
        raise ValueError(f"no model {name!r}; {hint}")
    model = _called(_find(name), name, settings)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} gives a {type(model).__name__}, wanted a torch.nn.Module")
    return model


def insert_block(model: nn.Module, what: str, example: Tensor) -> nn.Module:
    """Put a block behind a layer, as text says.

    A block that is called as `block(x, num_frames)` is wrapped in [`OnClips`][saccade.nn.on_clips.OnClips], and in a
    video transformer in [`OnTokens`][saccade.nn.on_clips.OnTokens].

    Args:
        model: Is changed.
        what: `LAYER=CLASS_PATH key=value ...`, such as `layer2=saccade.action.MotionSqueeze channels=512`.
        example: An input of the model; for clips (b, c, t, h, w) it says how many frames make a clip.

    Returns:
        The block.

    Raises:
        ValueError: Not of that form, or a block that does not fit.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> insert_block(model, "0=torch.nn.LayerNorm normalized_shape=3", torch.zeros(1, 2))
        LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)
    """
    words = shlex.split(what)
    layer, equals, path = words[0].partition("=") if words else ("", "", "")
    if not equals or not layer or not path:
        raise ValueError(f"a block to insert is 'LAYER=CLASS_PATH key=value ...', not {what!r}")
    block = build_model(path, words[1:])
    if "num_frames" in inspect.signature(block.forward).parameters:
        frames = example.shape[2] if example.ndim == 5 else None
        if isinstance(model, VideoTransformer):
            block = OnTokens(block, model.frames // model.tubelet)
        else:
            block = OnClips(block, frames)
    device = example.device
    insert_after(model, layer, block.to(device), example=example, as_name=f"block_{path.rpartition('.')[2]}")
    return block


def default_input(model: nn.Module) -> tuple[int, ...] | None:
    """The input that a model says it is made for, as a batch of one; `None` where it says nothing.

    Args:
        model: With an `input_spec` (one of clips), or one of timm.

    Returns:
        Its shape.

    Example:
        >>> default_input(timm.create_model("resnet18"))
        (1, 3, 224, 224)
    """
    spec = getattr(model, "input_spec", None)
    if isinstance(spec, InputSpec):
        return 1, 1 if spec.channels == "L" else 3, spec.frames, spec.size, spec.size
    config = getattr(model, "default_cfg", None)
    if isinstance(config, Mapping) and config.get("input_size"):
        return 1, *config["input_size"]
    return None


def _recipe_model(name: str) -> nn.Module:
    _, file = find_recipe(name)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "class_path" not in (content.get("model") or {}):
        raise ValueError(f"{name} has no task to train, so that there is no model in it")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "model", instantiate=True)
    try:
        task = parser.instantiate_classes(parser.parse_object({"model": content["model"]})).model
    except ArgumentError as error:
        raise ValueError(f"the model of {name} cannot be built: {' '.join(str(error).split())[:300]}") from None
    for attribute in ("backbone", "model", "network"):
        inside = getattr(task, attribute, None)
        if isinstance(inside, nn.Module):
            return inside
    raise ValueError(f"the task {type(task).__name__} of {name} has no network that stands alone")


def _settings(arguments: Sequence[str]) -> dict[str, Any]:
    settings = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"arguments are key=value, not {argument!r}")
        try:
            settings[key] = _built(yaml.safe_load(value))
        except yaml.YAMLError:
            raise ValueError(f"the value of {key} is no YAML: {value!r}") from None
    return settings


def _built(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        path = str(value["class_path"])
        inside = {key: _built(item) for key, item in (value.get("init_args") or {}).items()}
        return _called(_find(path), path, inside)
    return value


def _find(path: str) -> Any:
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no {path!r}: {error}") from None


def _called(function: Any, name: str, settings: Mapping[str, Any]) -> Any:
    if not callable(function):
        raise ValueError(f"{name} is a {type(function).__name__}, wanted a class or a function")
    try:
        return function(**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be built so: {' '.join(str(error).split())[:300]}") from error
