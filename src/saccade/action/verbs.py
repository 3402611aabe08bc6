"""What the action domain does for a person's own videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser

from saccade.action.task import ActionClassification, backbone_state
from saccade.checkpoints import load_strict, read_state
from saccade.data.clips import VIDEO_SUFFIXES, ClipRecord, ClipSampler, numbered_lines, open_clip
from saccade.data.transforms import EvalTransform
from saccade.data.video import VideoError, VideoReader
from saccade.nn.input_spec import InputSpec
from saccade.training.cli import load_task
from saccade.training.recipes import find_recipe
from saccade.training.task import Task


@dataclass(frozen=True)
class Score:
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class VideoPrediction:
    """What a video shows, the likeliest class first."""

    video: str
    scores: list[Score]


@dataclass(frozen=True)
class Predictions:
    """What many videos show, and those that could not be read, with the reason."""

    videos: list[VideoPrediction]
    skipped: dict[str, str]

    def json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), indent=1)


def classify_videos(
    videos: Sequence[str | Path],
    checkpoint: str | Path,
    *,
    config: str | None = None,
    labels: str | Path | None = None,
    top_k: int = 5,
    device: str = "cpu",
) -> Predictions:
    """Classify videos by a trained checkpoint.

    A single video that cannot be read is an error; among several it is skipped, with the reason. Frames are drawn as in
    validation, one clip and one centre crop a video.

    Args:
        videos: Video files, folders of frames `img_00001.jpg`, or folders of videos.
        checkpoint: Of `saccade fit`; or a state dict of the network, as `saccade convert` writes it, with `config`.
        config: Recipe, by name or file, that says which network the state dict belongs to.
        labels: File with one class name a line, in the order of class ids; ids where `None`.
        top_k: How many classes to give.
        device: Where to compute.

    Returns:
        Classes by video.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: An unreadable video, a checkpoint that does not fit, or labels of another number of classes.
    """
    if top_k < 1:
        raise ValueError(f"top_k has to be at least 1, not {top_k}")
    paths = _expand(videos)
    task = load_classifier(checkpoint, config).to(device)
    if isinstance(task.num_classes, dict):
        raise ValueError(f"{checkpoint} gives {', '.join(task.num_classes)}; one list of classes is predicted here")
    names = _names(labels, task.num_classes)
    spec = getattr(task.backbone, "input_spec", InputSpec())
    sampler = (
        ClipSampler("segment", spec.frames) if spec.stride is None else ClipSampler("clip", spec.frames, spec.stride)
    )
    transform = EvalTransform(spec)
    found: list[VideoPrediction] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            source = open_clip(ClipRecord(path))
            frames = source.read(sampler.test(len(source), source.fps)[0])
            if isinstance(source, VideoReader):
                source.close()
        except (VideoError, OSError) as error:
            if len(paths) == 1:
                raise
            skipped[str(path)] = str(error)
            continue
        with torch.no_grad():
            probabilities = task(transform(frames)[None].to(device))[0].cpu()
        best = probabilities.sort(descending=True, stable=True)
        scores = [Score(names[int(k)], float(p)) for p, k in zip(best.values, best.indices, strict=True)]
        found.append(VideoPrediction(str(path), scores[:top_k]))
    if not found:
        raise VideoError(f"none of the {len(paths)} videos can be read; the first: {next(iter(skipped.values()))}")
    return Predictions(found, skipped)


def load_classifier(checkpoint: str | Path, config: str | None = None) -> ActionClassification:
    """A trained network with its task.

    Args:
        checkpoint: Of `saccade fit`, or a state dict of the network or the task with `config`.
        config: Recipe, by name or file.

    Returns:
        The task, in eval mode.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: Not such a checkpoint, or one of another task or network.
    """
    if config is None:
        if Path(checkpoint).suffix == ".safetensors" and Path(checkpoint).is_file():
            raise ValueError(f"{checkpoint} holds weights alone: name its network with --config RECIPE")
        task = load_task(checkpoint)
    else:
        state = backbone_state(read_state(checkpoint))
        _, file = find_recipe(config)
        content = yaml.safe_load(file.read_text())
        if not isinstance(content, dict) or "model" not in content:
            raise ValueError(f"{file} is not a recipe: it has no 'model'")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(Task, "model", instantiate=True)
        task = parser.instantiate_classes(parser.parse_object({"model": content["model"]})).model.eval()
        if isinstance(task, ActionClassification):
            load_strict(task.backbone, state)
    if not isinstance(task, ActionClassification):
        raise ValueError(f"{checkpoint} belongs to the task {type(task).__name__}, which does not classify videos")
    return task


def _expand(videos: Sequence[str | Path]) -> list[Path]:
    paths: list[Path] = []
    for video in map(Path, videos):
        if not video.exists():
            raise FileNotFoundError(f"no video at {video}")
        inside = sorted(p for p in video.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES) if video.is_dir() else []
        paths += inside or [video]
    if not paths:
        raise ValueError("name at least one video")
    return paths


def _names(labels: str | Path | None, count: int) -> list[str]:
    if labels is None:
        return [str(i) for i in range(count)]
    names = [line for _, line in numbered_lines(Path(labels))]
    if len(names) != count:
        raise ValueError(f"{labels} has {len(names)} labels, and the checkpoint has {count} classes")
    return names
