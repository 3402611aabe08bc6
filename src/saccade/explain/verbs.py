"""What the domain does for a person's own files: `saccade explain` and `saccade pointing`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from saccade.checkpoints import load_strict, read_state
from saccade.explain import checkpoints
from saccade.explain.benchmark import MAPS, BenchmarkResult, BenchmarkSettings, run_benchmark
from saccade.explain.classifiers import Classifier, load_classifier
from saccade.explain.datasets import COCO2014, VOC2007, AnnotatedImages, read_image
from saccade.explain.draw import colours, overlay, sheet, to_pixels, unit
from saccade.explain.extremal_perturbation import ExtremalPerturbation
from saccade.explain.maps import peak
from saccade.explain.rise import rise
from saccade.spelling import near_it
from saccade.surgery import frozen, get_module

NEEDS_LAYER = ("grad_cam", "excitation_backprop", "contrastive_excitation_backprop")


@dataclass(frozen=True)
class Explanation:
    """What `explain` found and wrote.

    Args:
        image: The file.
        model: Its name.
        weights: What it was loaded with.
        method: Of attribution.
        layer: The saliency layer; empty: the input.
        target: Class that was asked for.
        target_name: Its name, where known.
        score: Its logit.
        probability: Its softmax score.
        top: The five best classes: index, name, probability.
        peak: (x, y) of the map's highest value, in pixels of the file.
        size: (height, width) that the model saw.
        details: What the method says beyond the map: for extremal perturbations areas, scores, the smallest area that
            is enough.
        files: What was written, by kind.
    """

    image: str
    model: str
    weights: str
    method: str
    layer: str
    target: int
    target_name: str
    score: float
    probability: float
    top: list[tuple[int, str, float]]
    peak: tuple[int, int]
    size: tuple[int, int]
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def explain(
    image: str | Path,
    model: str,
    *,
    weights: str = "default",
    method: str = "grad_cam",
    target: int | None = None,
    layer: str | None = None,
    contrast_layer: str | None = None,
    out: str | Path = "explained",
    size: int = 224,
    areas: tuple[float, ...] = (0.05, 0.1, 0.2),
    steps: int = 300,
    masks: int = 2000,
    download: bool = False,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Explanation:
    """Explain a classifier's answer on one image, and write heat maps and a summary.

    Args:
        image: The file.
        model: Name of the classifier, see `load_classifier`.
        weights: `default`, `none` or a checkpoint.
        method: A name of `MAPS`, with hyphens or underscores.
        target: Class; `None`: the one the model says.
        layer: Saliency layer; `None`: the method's usual one.
        contrast_layer: Of contrastive excitation backprop.
        out: Folder for the results.
        size: Shorter side of what the model sees, in pixels.
        areas: Of extremal perturbations.
        steps: Of their search.
        masks: Of RISE.
        download: Whether published weights may be downloaded.
        device: Where to compute.
        progress: Called with the share that is done.

    Returns:
        The summary, which is also written as JSON.

    Raises:
        FileNotFoundError: No such image or checkpoint.
        OSError: The folder cannot be written.
        TypeError: A target that is no whole number.
        ValueError: Not an image; an unknown model, layer or method; a target out of range.
    """
    name = method.replace("-", "_")
    if name not in MAPS:
        known = [key.replace("_", "-") for key in MAPS]
        hint = near_it(method, known, f"there is {', '.join(known)}")
        raise ValueError(f"unknown method {method!r}; {hint}")
    if size < 16:
        raise ValueError(f"size {size}: wanted at least 16 pixels")
    picture = read_image(image)
    folder = _writable(Path(out))
    classifier = load_classifier(model, weights, download=download)
    network = classifier.model.to(device)
    if layer is not None:
        get_module(network, layer)
    shown, scores, trace = _first_look(network, classifier, picture, size, device)
    answer = int(scores.argmax()) if target is None else target
    if not 0 <= answer < len(scores):
        raise ValueError(f"target {answer} is out of range: {model} has classes 0 to {len(scores) - 1}")

    settings: dict[str, Any] = {}
    if name in NEEDS_LAYER:
        layer = layer or _last(trace, spatial=True)
    if name == "contrastive_excitation_backprop":
        settings["contrast_layer"] = contrast_layer or _last(trace, spatial=False)
    details: dict[str, Any] = {}
    sheets: dict[str, Any] = {}
    if name == "extremal_perturbation":
        scale = min(shown.shape[-2:]) / 224
        step, sigma = max(1, round(7 * scale)), max(1.0, round(21 * scale))
        search = ExtremalPerturbation(network, areas, step=step, sigma=sigma, max_iter=steps)
        found = search.attribute(shown, answer, progress=progress)
        saliency = found.saliency
        keys = ("areas", "visible_areas", "scores", "image_score", "perturbed_score", "optimal_area")
        details = {key: getattr(found, key) for key in keys}
        seen = F.interpolate(picture[None], size=shown.shape[-2:], mode="bilinear", antialias=True)[0]
        tiles = [to_pixels(seen * mask + 0.92 * (1 - mask)) for mask in found.masks.cpu()]
        titles = ["image", *(f"{100 * area:g}% kept" for area in found.areas)]
        sheets["areas"] = sheet([[to_pixels(seen), *tiles]], titles, tile=224)
    elif name == "rise":
        saliency = rise(network, shown, answer, num_masks=masks, progress=progress)
    else:
        saliency = MAPS[name](network, shown, answer, layer=layer, **settings)
    height, width = picture.shape[-2:]
    saliency = F.interpolate(saliency.cpu(), size=(height, width), mode="bilinear", align_corners=False)

    stem = f"{Path(image).stem}-{name.replace('_', '-')}"
    pictures = {
        "overlay": overlay(to_pixels(picture), saliency[0, 0]),
        "map": colours(unit(saliency[0, 0])),
        "raw": (255 * unit(saliency[0, 0])).round().astype("uint8"),
        **sheets,
    }
    files = {kind: str(folder / f"{stem}-{kind}.png") for kind in pictures}
    for kind, pixels in pictures.items():
        Image.fromarray(pixels).save(files[kind])
    files["summary"] = str(folder / f"{stem}.json")
    names = classifier.classes or ("",) * len(scores)
    x, y = peak(saliency)[0].tolist()
    probabilities = scores.softmax(0)
    result = Explanation(
        image=str(image), model=model, weights=classifier.weights, method=name, layer=layer or "", target=answer,
        target_name=names[answer], score=float(scores[answer]), probability=float(probabilities[answer]),
        top=[(int(k), names[int(k)], float(probabilities[k])) for k in probabilities.topk(min(5, len(scores))).indices],
        peak=(x, y), size=(shown.shape[-2], shown.shape[-1]), details=details, files=files,
    )  # fmt: skip
    Path(files["summary"]).write_text(json.dumps(asdict(result), indent=1) + "\n")
    return result


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}") from None
    return folder


def _first_look(
    network: nn.Module, classifier: Classifier, picture: Tensor, size: int, device: str
) -> tuple[Tensor, Tensor, dict[str, torch.Size]]:
    """What the model sees, its logits, and every layer's output shape in the order they ran.

    The aspect ratio is kept; where the model wants a square, the image is squashed into one.
    """
    height, width = picture.shape[-2:]
    scale = size / min(height, width)
    fault: Exception | None = None
    for wanted in ((round(height * scale), round(width * scale)), (size, size)):
        resized = F.interpolate(picture[None], size=wanted, mode="bilinear", antialias=True)
        shown = classifier.normalise(resized).to(device)
        trace, hooks = _record(network)
        try:
            with frozen(network), torch.no_grad():
                output = network(shown)
        except (RuntimeError, AssertionError, ValueError) as error:
            fault = error
            continue
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(output, Tensor) or output.ndim not in (2, 4):
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the model gives {what}: wanted logits (n, k) or (n, k, h, w)")
        return shown, output.flatten(2).mean(2)[0] if output.ndim == 4 else output[0], trace
    raise ValueError(f"the model does not accept images of {size} pixels: {fault}")


def _record(network: nn.Module) -> tuple[dict[str, torch.Size], list[RemovableHandle]]:
    """Hooks that write every layer's output shape into a dict, in the order in which the layers run."""
    trace: dict[str, torch.Size] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor):
                trace[name] = output.shape

        return hook

    return trace, [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]


def _last(trace: Mapping[str, torch.Size], *, spatial: bool) -> str:
    """The last layer that gave feature maps (with more than one position), by the order of running."""
    names = [name for name, shape in trace.items() if len(shape) == 4 and (not spatial or shape[2] * shape[3] > 1)]
    if not names:
        raise ValueError("no layer of this model gives feature maps (n, c, h, w): choose another method")
    return names[-1]


@dataclass(frozen=True)
class PointingRow:
    """One method's row of a benchmark.

    Args:
        method: Its name.
        all: Percent, all pairs.
        difficult: Percent, difficult pairs.
        paper: The paper's figures, all and difficult.
        pairs: Number of pairs.
        skipped: Images that could not be read.
    """

    method: str
    all: float
    difficult: float
    paper: tuple[float, ...]
    pairs: int
    skipped: int


def pointing(
    recipe: str | Path,
    root: str | Path,
    weights: str | Path,
    *,
    methods: tuple[str, ...] = (),
    difficult: str | Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
    progress: Callable[[str, float], None] | None = None,
) -> list[PointingRow]:
    """Run a recipe of the pointing game: every method on a data set with one of TorchRay's classifiers.

    Args:
        recipe: The YAML file.
        root: Of the data set.
        weights: The classifier's checkpoint, the authors' file or converted; `none`: random, to try the recipe out.
        methods: Which of the recipe's methods; all where empty.
        difficult: File of difficult flags; `None`: found from the masks.
        limit: Use the first images alone.
        device: Where to compute.
        progress: Called with the method and the share that is done.

    Returns:
        A row for each method.

    Raises:
        FileNotFoundError: The recipe, the data set or the checkpoint is missing.
        ValueError: A malformed recipe, an unknown method, a checkpoint that does not fit.
    """
    content = _read_recipe(Path(recipe))
    unknown = [name for name in methods if name not in content["methods"]]
    if unknown:
        raise ValueError(f"{recipe} has no method {unknown[0]!r}: it has {', '.join(content['methods'])}")
    dataset: AnnotatedImages
    dataset = (VOC2007 if content["dataset"] == "voc07" else COCO2014)(root, content["split"])
    kind, count = content["model"], len(dataset.classes)
    if str(weights) == "none":
        torch.manual_seed(0)
        state = None
    else:
        state = read_state(weights)
        keys = ("classifier.6.bias",) if kind == "vgg16" else ("fc.bias",)
        ours = (
            keys[0] in state
            and state[keys[0].replace("bias", "weight")].ndim == 4
            and not any(".bn1.0." in key or key.startswith("bn1.0.") for key in state)
        )
        state = state if ours else checkpoints.convert(state)
    rows = []
    for name, options in content["methods"].items():
        if methods and name not in methods:
            continue
        options = dict(options or {})
        paper = tuple(options.pop("paper", ()))
        network: nn.Module
        if kind == "vgg16":
            network = checkpoints.torchray_vgg16(count)
        else:
            network = checkpoints.torchray_resnet50(count, sliding_pool=options.pop("sliding_pool", False))
        if state is not None:
            load_strict(network, state)
        square = options.pop("square", False)
        settings = BenchmarkSettings(name, options, content["shorter_side"], square, limit)
        result: BenchmarkResult = run_benchmark(
            network, dataset, settings, normalise=checkpoints.normalise, device=device, tolerance=content["tolerance"],
            difficult=True if difficult is None else difficult,
            progress=None if progress is None else lambda share, name=name: progress(name, share),  # type: ignore[misc]
        )  # fmt: skip
        rows.append(PointingRow(name, result.all, result.difficult, paper, result.pairs, result.skipped))
    return rows


def _read_recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    wanted = {"dataset": ("voc07", "coco14"), "model": ("vgg16", "resnet50")}
    if not isinstance(content, dict) or not isinstance(content.get("methods"), dict):
        raise ValueError(f"{path} is no recipe of the pointing game: it has no methods")
    content = {"split": "test", "tolerance": 15, "shorter_side": 224, **content}
    for key, accepted in wanted.items():
        if content.get(key) not in accepted:
            raise ValueError(f"{path}: {key} is {content.get(key)!r}, wanted {' or '.join(accepted)}")
    extra = sorted(set(content) - {"dataset", "model", "split", "tolerance", "shorter_side", "methods"})
    if extra:
        raise ValueError(f"{path}: unknown key {extra[0]!r}")
    return content
