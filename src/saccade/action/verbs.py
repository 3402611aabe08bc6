"""What the action domain does for a person's own videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor

from saccade.action.task import ActionClassification, backbone_state
from saccade.action.timeline import sampler_of, slide, timeline_picture
from saccade.checkpoints import load_strict, read_state
from saccade.data.clips import VIDEO_SUFFIXES, ClipRecord, close_clip, numbered_lines, open_clip
from saccade.data.transforms import EvalTransform
from saccade.data.video import VideoError
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
class Moment:
    """What a stretch of a video shows, from `start` to `end` in seconds, the likeliest class first."""

    start: float
    end: float
    scores: list[Score]


@dataclass(frozen=True)
class VideoPrediction:
    """What a video shows, the likeliest class first; and over time, where that was asked for."""

    video: str
    scores: list[Score]
    clips: list[Moment] = field(default_factory=list)
    timeline: str | None = None


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
    over_time: bool = False,
    timeline: str | Path | None = None,
    window: float | None = None,
    step: float | None = None,
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
        over_time: Also classify clips that slide over each video.
        timeline: Draw them as a picture, a PNG; of several videos each gets a file with its name added.
        window: Length of a sliding clip in seconds; `None`: the model's own, see
            [`window_frames`][saccade.action.timeline.window_frames].
        step: From one sliding clip to the next in seconds; `None`: half a window.

    Returns:
        Classes by video.

    Raises:
        FileNotFoundError: A file, or the picture's folder, is not there.
        ValueError: A window or step that is not positive, a picture that is no PNG, an unreadable video, a checkpoint
            that does not fit, or labels of another number of classes.
    """
    if top_k < 1:
        raise ValueError(f"top_k has to be at least 1, not {top_k}")
    if window is not None and not window > 0:
        raise ValueError(f"the window has to be longer than 0 seconds, not {window:g}")
    if step is not None and not step > 0:
        raise ValueError(f"the step has to be longer than 0 seconds, not {step:g}")
    paths = _expand(videos)
    pictures = _pictures(timeline, paths)
    over_time = over_time or timeline is not None or window is not None or step is not None
    task = load_classifier(checkpoint, config).to(device)
    if isinstance(task.num_classes, dict):
        raise ValueError(f"{checkpoint} gives {', '.join(task.num_classes)}; one list of classes is predicted here")
    names = _names(labels, task.num_classes)
    spec = getattr(task.backbone, "input_spec", InputSpec())
    sampler = sampler_of(spec)
    transform = EvalTransform(spec)
    found: list[VideoPrediction] = []
    skipped: dict[str, str] = {}
    for path in paths:
        source, sliding = None, None
        try:
            source = open_clip(ClipRecord(path))
            frames = source.read(sampler.test(len(source), source.fps)[0])
            if over_time:
                sliding = slide(task, source, spec, window=window, step=step, device=device)
        except (VideoError, OSError) as error:
            if len(paths) == 1:
                raise
            skipped[str(path)] = str(error)
            continue
        finally:
            if source is not None:
                close_clip(source)
        with torch.no_grad():
            probabilities = task(transform(frames)[None].to(device))[0].cpu()
        moments = []
        if sliding is not None:
            edges = zip(sliding.start.tolist(), sliding.end.tolist(), sliding.probabilities, strict=True)
            moments = [Moment(round(a, 3), round(b, 3), _scores(row, names, top_k)) for a, b, row in edges]
        picture = pictures.get(path)
        if sliding is not None and picture is not None:
            Image.fromarray(timeline_picture(sliding, names, top_k=top_k, title=path.name)).save(picture)
        drawn = None if picture is None else str(picture)
        found.append(VideoPrediction(str(path), _scores(probabilities, names, top_k), moments, drawn))
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


def _scores(probabilities: Tensor, names: Sequence[str], top_k: int) -> list[Score]:
    best = probabilities.sort(descending=True, stable=True)
    return [Score(names[int(k)], float(p)) for p, k in zip(best.values[:top_k], best.indices, strict=False)]


def _pictures(timeline: str | Path | None, paths: Sequence[Path]) -> dict[Path, Path]:
    """Which picture each video gets."""
    if timeline is None:
        return {}
    timeline = Path(timeline)
    if timeline.suffix.lower() != ".png":
        raise ValueError(f"the timeline is a PNG, and {timeline} is not named so")
    if not timeline.parent.is_dir():
        raise FileNotFoundError(f"no folder {timeline.parent} for the timeline")
    if len(paths) == 1:
        return {paths[0]: timeline}
    found: dict[Path, Path] = {}
    for path in paths:
        name = timeline.with_stem(f"{timeline.stem}-{path.stem}")
        number = 2
        while name in found.values():  # videos of the same name in several folders
            name = timeline.with_stem(f"{timeline.stem}-{path.stem}-{number}")
            number += 1
        found[path] = name
    return found


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
