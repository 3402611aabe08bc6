"""Adapt a classifier to a person's own images: labelled folders and a folder without labels in, answers out."""

from __future__ import annotations

import csv
import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import nn
from torch.optim import Adam

from saccade.adaptation.adversary import DomainDiscriminator
from saccade.adaptation.baselines import DomainAdversarial, SourceOnly
from saccade.adaptation.cmss import CMSS, CurriculumManager
from saccade.adaptation.cosine_predictor import CosinePredictor
from saccade.adaptation.datamodule import DomainSets
from saccade.adaptation.datasets import DomainFiles, class_domain, hold_out, same_classes, transforms
from saccade.adaptation.dsbn_stages import DSBNStage1
from saccade.adaptation.images import FileImages, answers
from saccade.adaptation.method import AdaptationMethod, Predictions
from saccade.adaptation.mico import DeCoTa
from saccade.adaptation.mstn import MSTN
from saccade.adaptation.networks import Classifier, digit_classifier, timm_classifier
from saccade.adaptation.pictures import embedding_map
from saccade.adaptation.schedules import InverseDecayLR
from saccade.adaptation.task import DomainAdaptation
from saccade.checkpoints import load_strict, read_state, write_state
from saccade.data.records import IMAGE_ENDINGS, Record
from saccade.training.fit import LossCurve, quiet
from saccade.training.resume import AtomicCheckpointIO, LastCheckpoint, StepSeeds

Build = Callable[[Callable[[], Classifier], int], AdaptationMethod]
"""A maker of classifiers and the number of sources to a method."""


@dataclass(frozen=True)
class MethodChoice:
    """A method that `saccade adapt` knows.

    Args:
        build: Makes it.
        needs_labelled: Whether it wants some labelled images of the target.
        merge_sources: Whether all sources are poured together.
    """

    build: Build
    needs_labelled: bool = False
    merge_sources: bool = False


def _dann(make: Callable[[], Classifier], conditional: bool) -> AdaptationMethod:
    classifier = make()
    if conditional:
        return DomainAdversarial(classifier, weight=0.1, conditional=True)
    return DomainAdversarial(classifier, DomainDiscriminator(classifier.in_features, 256, 0.0), weight=0.1)


def _mico(make: Callable[[], Classifier]) -> AdaptationMethod:
    plain = make()
    head = CosinePredictor(plain.in_features, plain.num_classes)
    classifier = Classifier(plain.body, head, plain.in_features, plain.num_classes)
    return DeCoTa(classifier, pretrain=0.3, lr_mult=1.0, head_lr_mult=1.0)


def _cmss(make: Callable[[], Classifier]) -> AdaptationMethod:
    """With a manager of the classifier's kind, bounded scores, and the discriminator on the weighted loss."""
    classifier, judge = make(), make()
    manager = CurriculumManager(nn.Sequential(judge.body, nn.Linear(judge.in_features, 1)), bound=2.0)
    discriminator = DomainDiscriminator(classifier.in_features, 256, 0.0)
    return CMSS(classifier, manager, discriminator, weight=0.1, weighted_discriminator=True)


def _dsbn(make: Callable[[], Classifier], sources: int) -> AdaptationMethod:
    classifier = make()
    classes = classifier.num_classes
    alignment = MSTN(classes, classes, sources, discriminator=lambda width: DomainDiscriminator(width, 256, 0.0))
    return DSBNStage1(classifier, alignment, sources, backbone_lr=1.0)


METHODS: dict[str, MethodChoice] = {
    "source-only": MethodChoice(lambda make, sources: SourceOnly(make())),
    "dann": MethodChoice(lambda make, sources: _dann(make, conditional=False)),
    "cdan": MethodChoice(lambda make, sources: _dann(make, conditional=True)),
    "mico": MethodChoice(lambda make, sources: _mico(make), needs_labelled=True, merge_sources=True),
    "cmss": MethodChoice(lambda make, sources: _cmss(make)),
    "dsbn": MethodChoice(lambda make, sources: _dsbn(make, sources)),
}


@dataclass(frozen=True)
class AdaptSettings:
    """How to adapt.

    Args:
        method: One of `METHODS`.
        model: A name of timm's, or `small`, a network of two convolutions for small pictures.
        pretrained: Start from timm's weights.
        size: Side of the images.
        augmentation: Of [`DomainImages`][saccade.adaptation.datasets.DomainImages].
        iterations: In all.
        batch: Images of each domain an iteration.
        lr: Of Adam; it falls as (1 + 10 p)^-0.75.
        holdout: Share of the sources that is kept to measure on.
        seed: Of all that is drawn.

    Raises:
        ValueError: Unknown method, or numbers that make no sense.
    """

    method: str = "dsbn"
    model: str = "resnet18"
    pretrained: bool = False
    size: int = 224
    augmentation: str = "resized-crop"
    iterations: int = 1000
    batch: int = 32
    lr: float = 1e-4
    holdout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"no method {self.method!r}; there is {', '.join(METHODS)}")
        if self.augmentation not in ("resized-crop", "crop", "none"):
            raise ValueError(f"augmentation is {self.augmentation!r}; resized-crop, crop or none is accepted")
        if min(self.iterations, self.batch) < 1 or self.size < 8 or not 0 <= self.holdout < 1 or self.lr <= 0:
            raise ValueError(
                f"iterations {self.iterations} and batch {self.batch} are at least 1, size {self.size} at least 8, "
                f"holdout {self.holdout} in [0, 1), lr {self.lr} above 0"
            )


@dataclass(frozen=True)
class Adapted:
    """What `saccade adapt` gives.

    Args:
        files: The target's images that could be read.
        predictions: One row each.
        names: Name of each class.
        summary: Counts and measures, as JSON.
    """

    files: list[Path]
    predictions: Predictions
    names: tuple[str, ...]
    summary: dict[str, Any] = field(default_factory=dict)


def adapt(
    sources: Sequence[Path],
    target: Path,
    out: Path,
    settings: AdaptSettings,
    *,
    labelled: Path | None = None,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
    fresh: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Adapted:
    """Train on labelled folders and a folder without labels, and answer for the latter.

    In `out` are then `predictions.csv`, `summary.json`, `embeddings.png`, and the network: `model.safetensors` with
    `settings.json`, which [`load_adapted`][saccade.adaptation.verbs.load_adapted] reads. After an interruption the
    same call goes on.

    Args:
        sources: Folders of `<class>/*`, one a domain.
        target: A folder of images, at any depth; names of folders in it mean nothing.
        out: Where the results go.
        settings: How.
        labelled: A folder of `<class>/*` with some labelled images of the target.
        device: Where to compute.
        num_workers: Processes that load.
        fresh: Start anew, whatever `out` holds.
        progress: Called with the share that is done.

    Returns:
        Answers for the target.

    Raises:
        FileNotFoundError: A folder that is not there.
        ValueError: Empty folders, classes that differ between domains, a method that wants labelled images of the
            target, or `out` holding a run with other settings.
    """
    choice = METHODS[settings.method]
    domains = {str(folder): _labelled(folder) for folder in sources}
    if choice.needs_labelled and labelled is None:
        raise ValueError(f"{settings.method} wants some labelled images of the target: give --labelled FOLDER")
    if labelled is not None:
        domains[str(labelled)] = _labelled(labelled)
    if not sources:
        raise ValueError("there is no source")
    same_classes(domains)
    wanted = _images_below(target)
    names = tuple(next(iter(domains.values())).names.values())
    _check_run(out, settings, names, len(sources), fresh)

    train, test = transforms(settings.size, settings.augmentation)  # type: ignore[arg-type]
    parts = [hold_out(domains[str(folder)].records, settings.holdout, settings.seed) for folder in sources]
    kept, held = [part[0] for part in parts], [record for part in parts for record in part[1]]
    if choice.merge_sources:
        kept = [[record for records in kept for record in records]]
    few = FileImages(domains[str(labelled)].records, train, train=True) if labelled is not None else None
    unknown = [Record(path, -1) for path in wanted]
    training = [*(FileImages(records, train, train=True) for records in kept), FileImages(unknown, train, train=True)]
    data = DomainSets(
        training[:-1],
        training[-1:],
        few,
        source_batch=settings.batch,
        target_batch=settings.batch,
        labelled_batch=settings.batch,
        iterations=settings.iterations,
        num_workers=num_workers,
        seed=settings.seed,
    )
    torch.manual_seed(settings.seed)
    method = build(settings, len(names), len(kept))
    task = DomainAdaptation(
        method, lambda groups: Adam(groups, lr=settings.lr), lambda o: InverseDecayLR(o, 10 / settings.iterations)
    )
    _fit(task, data, out, settings, device, progress)
    method.to(device).eval()
    write_state(method.state_dict(), out / "model.safetensors")

    targets = FileImages(unknown, test)
    predictions, places = answers(method, targets, device)
    summary: dict[str, Any] = {
        "method": settings.method,
        "sources": {str(folder): len(domains[str(folder)].records) for folder in sources},
        "target_images": len(wanted),
        "unreadable": len(wanted) - len(places),
        "classes": list(names),
        "answers": dict(Counter(names[label] for label in predictions.labels.tolist())),
        "mean_confidence": float(predictions.confidences.mean()),
    }
    if held:
        shown = FileImages(held, test)
        said, seen = answers(method, shown, device, 0)
        actual = torch.tensor([held[place].label for place in seen.tolist()])
        summary["held_out_source_accuracy"] = float((said.labels == actual).float().mean())
    files = [wanted[place] for place in places.tolist()]
    result = Adapted(files, predictions, names, summary)
    _write(out, target, result)
    _draw(out, method, [FileImages(records, test) for records in kept], sources, result, device)
    return result


def build(settings: AdaptSettings, classes: int, sources: int) -> AdaptationMethod:
    """The untrained method that settings name.

    Args:
        settings: Which.
        classes: Number of classes.
        sources: Number of source domains.

    Returns:
        The method, with random or pretrained weights.

    Example:
        >>> type(build(AdaptSettings(method="dann", model="small", size=32), 3, 1)).__name__
        'DomainAdversarial'
    """

    def make() -> Classifier:
        if settings.model == "small":
            return digit_classifier(settings.size, 3, classes)
        return timm_classifier(settings.model, classes, settings.pretrained)

    return METHODS[settings.method].build(make, sources)


def load_adapted(folder: Path) -> tuple[AdaptationMethod, tuple[str, ...], Callable[[Image.Image], torch.Tensor]]:
    """The network that `saccade adapt` left in a folder.

    Args:
        folder: What was `out`.

    Returns:
        The method in evaluation mode, the names of its classes, and the transform from a PIL image in RGB.

    Raises:
        FileNotFoundError: No such folder, or a run that has not ended.
    """
    if not (folder / "settings.json").is_file() or not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} has no settings.json and model.safetensors, as `saccade adapt` leaves them")
    content = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    settings = AdaptSettings(**{**content["settings"], "pretrained": False})
    sources = 1 if METHODS[settings.method].merge_sources else content["sources"]
    method = build(settings, len(content["classes"]), sources)
    load_strict(method, read_state(folder / "model.safetensors"))
    return method.eval(), tuple(content["classes"]), transforms(settings.size, settings.augmentation)[1]  # type: ignore[arg-type]


def _fit(
    task: DomainAdaptation,
    data: DomainSets,
    out: Path,
    settings: AdaptSettings,
    device: torch.device | str,
    progress: Callable[[float], None] | None,
) -> None:
    last = LastCheckpoint(out, every_n_steps=100)
    callbacks: list[Callback] = [StepSeeds(settings.seed), last, LossCurve(progress=progress)]
    on = torch.device(device)
    with quiet():
        trainer = Trainer(
            accelerator="gpu" if on.type == "cuda" else "cpu",
            devices=[on.index or 0] if on.type == "cuda" else 1,
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(out),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("default", message=".*cannot be read as an image.*")
            trainer.fit(task, data, ckpt_path=str(last.path) if last.path.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt


def _check_run(out: Path, settings: AdaptSettings, names: Sequence[str], sources: int, fresh: bool) -> None:
    """Another run must not go on from what a folder holds."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "settings.json"
    about = {"settings": asdict(settings), "classes": list(names), "sources": sources}
    if file.is_file() and not fresh and json.loads(file.read_text(encoding="utf-8")) != about:
        raise ValueError(f"{out} holds a run with other settings: give --fresh to start anew, or another --out")
    if fresh:
        (out / "last.ckpt").unlink(missing_ok=True)
    file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _labelled(folder: Path) -> DomainFiles:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; a source is a folder of <class>/*")
    domain = class_domain(folder, "a source")
    if len(domain.names) < 2:
        raise ValueError(f"{folder} has one folder; one a class is wanted, at least two")
    return domain


def _images_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; the target is a folder of images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise ValueError(f"the target is empty: no images ({', '.join(sorted(IMAGE_ENDINGS))}) below {folder}")
    return found


def _write(out: Path, target: Path, result: Adapted) -> None:
    with (out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "prediction", "confidence", *result.names])
        rows = zip(result.files, result.predictions.labels.tolist(), result.predictions.probabilities, strict=True)
        for path, label, probabilities in rows:
            shares = [f"{share:.4f}" for share in probabilities.tolist()]
            writer.writerow([path.relative_to(target).as_posix(), result.names[label], shares[label], *shares])
    (out / "summary.json").write_text(json.dumps(result.summary, indent=1) + "\n", encoding="utf-8")


def _draw(
    out: Path,
    method: AdaptationMethod,
    kept: Sequence[FileImages],
    sources: Sequence[Path],
    result: Adapted,
    device: torch.device | str,
) -> None:
    titles = [f"source {path.name}" for path in sources] if len(kept) == len(sources) else ["sources"]
    features, classes = {}, {}
    for number, (title, images) in enumerate(zip(titles, kept, strict=True)):
        some = FileImages(images.files.records[:: max(1, len(images) // 400)], images.files.transform)
        said, places = answers(method, some, device, number)
        features[title] = said.embeddings
        classes[title] = torch.tensor([some.files.records[place].label for place in places.tolist()])
    features["target"], classes["target"] = result.predictions.embeddings, result.predictions.labels
    if sum(len(rows) for rows in features.values()) >= 5:
        picture = embedding_map(
            features, classes, result.names, title="features; the classes of the target are the answers"
        )
        Image.fromarray(picture).save(out / "embeddings.png")
