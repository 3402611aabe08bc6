"""What the efficiency domain does for a person's own networks: compress a checkpoint, with re-training where asked."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from saccade.checkpoints import load_strict, read_state, read_torch
from saccade.data.loading import make_loader
from saccade.efficiency.compressed_file import IndexCode, read_compressed, save_compressed
from saccade.efficiency.compression import compression_report
from saccade.efficiency.datasets import ImageClasses
from saccade.efficiency.energy import energy_report
from saccade.efficiency.shared_weights import ClusteredModel, cluster_weights
from saccade.efficiency.task import ClusteredClassification, network_state
from saccade.surgery import find_layers, recalibrate_bn
from saccade.training.cli import EMBEDDED, load_task
from saccade.training.models import build_model, default_input
from saccade.training.resume import AtomicCheckpointIO, LastCheckpoint, StepSeeds

BUILT_IN = ("digits", "mnist", "fashion-mnist", "usps", "cifar10")


@dataclass(frozen=True)
class Retraining:
    """How a network is trained again before it is clustered.

    Attributes:
        epochs: Passes over the training images.
        lr: Highest learning rate of SGD with momentum 0.9 and a cosine schedule.
        lam: Strength of the regulariser.
        ramp: Raise the strength from 0 over the run.
    """

    epochs: int = 10
    lr: float = 0.01
    lam: float = 1.0
    ramp: bool = False


@dataclass(frozen=True)
class LayerLine:
    """One shared layer: clusters, rows, clustering error over variance, bits of an index (entropy)."""

    name: str
    clusters: int
    rows: int
    relative_error: float
    entropy: float


@dataclass(frozen=True)
class Compressed:
    """What `compress` did.

    Attributes:
        file: The compressed network.
        checkpoint: Where it came from.
        float32_bytes: Size of the network's state dict as a safetensors file of its own types.
        compressed_bytes: Size of the file.
        ratio: The one over the other.
        accounted: Compression ratio of convolutions and linear layers, as the paper counts (`entropy`), with a real
            Huffman code, and with indices of fixed width.
        accuracy: On the validation images, 0 to 1: `before`, and of what was made of it; empty without such images.
        energy: Estimate for one input in microjoules, `before` and `after`; empty where the input's size is not known.
        layers: The shared layers.
        notes: What was left out, and why.
    """

    file: str
    checkpoint: str
    float32_bytes: int
    compressed_bytes: int
    ratio: float
    accounted: dict[str, float]
    accuracy: dict[str, float]
    energy: dict[str, float]
    layers: list[LayerLine]
    notes: list[str] = field(default_factory=list)

    def json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class Network:
    """A network with its weights, and what its checkpoint says about its data."""

    model: nn.Module
    data: dict[str, Any]
    about: dict[str, Any]


def load_network(checkpoint: str | Path, model: str | None = None, arguments: Sequence[str] = ()) -> Network:
    """A network from a checkpoint.

    Args:
        checkpoint: A checkpoint of `saccade fit`, or a state dict.
        model: How to build the network of a state dict: a recipe, a dotted path, or a name of timm.
        arguments: `key=value` for the latter two.

    Returns:
        The network, in eval mode.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A checkpoint that does not say how it is built, or that does not fit.
    """
    path = Path(checkpoint)
    if model is not None:
        network = build_model(model, arguments)
        load_strict(network, network_state(read_state(path)))
        return Network(network.eval(), {}, {"model": model, "arguments": list(arguments)})
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    content = None if path.suffix == ".safetensors" else read_torch(path)
    if not isinstance(content, dict) or EMBEDDED not in content:
        raise ValueError(f"{path} does not say how its network is built: give --model NAME and its arguments")
    task = load_task(path)
    config = yaml.safe_load(content[EMBEDDED])
    names = ("kept", "model", "backbone", "network")
    if isinstance(task, ClusteredClassification) and float(task.best_accuracy) < 0:
        names = ("model", "kept", "backbone", "network")
    found = next((getattr(task, name) for name in names if isinstance(getattr(task, name, None), nn.Module)), None)
    if found is None:
        raise ValueError(f"{path} is of a {type(task).__name__}, which has no network that stands alone")
    data = config.get("data") or {}
    known = dict(data.get("init_args") or {}) if str(data.get("class_path", "")).endswith(".ImageClasses") else {}
    return Network(found.requires_grad_(True).eval(), known, {"config": config["model"]})


def open_images(data: str, known: Mapping[str, Any] | None = None, **given: Any) -> ImageClasses:
    """Images to train or to validate on.

    Args:
        data: A folder with `train/<class>/*` and `val/<class>/*`, or one of the sets known by name.
        known: Settings of the checkpoint's own data.
        given: Settings of the call; those that are `None` are not given.

    Returns:
        The data module.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: Settings that do not fit together.
    """
    settings = {**(known or {}), **{key: value for key, value in given.items() if value is not None}}
    if data in BUILT_IN:
        settings["layout"] = data
    else:
        if not Path(data).is_dir():
            raise FileNotFoundError(f"no image folder at {data}, and no set of that name ({', '.join(BUILT_IN)})")
        settings |= {"layout": "folder", "root": data}
        settings.setdefault("size", 0)
        if not settings["size"]:
            raise ValueError(f"images of {data} have to be brought to one size: give --size")
    return ImageClasses(**settings)


def compress(
    checkpoint: str | Path,
    out: str | Path,
    clusters: int | Mapping[str, int],
    core_ratio: float | Mapping[str, float] = 0.0,
    *,
    model: str | None = None,
    arguments: Sequence[str] = (),
    layers: Sequence[str] | None = None,
    data: ImageClasses | Callable[[Mapping[str, Any]], ImageClasses] | None = None,
    retraining: Retraining | None = None,
    code: IndexCode = "smallest",
    input_size: Sequence[int] | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Compressed:
    """Cluster the convolutions of a network and write it, packed; measure what that cost and what it saved.

    Args:
        checkpoint: As in `load_network`.
        out: The compressed file.
        clusters: K of every convolution, or by name.
        core_ratio: Share of the rows in the dense core, likewise.
        model: As in `load_network`.
        arguments: As in `load_network`.
        layers: Names of the convolutions, where `clusters` is one number.
        data: Images: their validation part measures accuracy, their training part re-estimates batch norms and, with
            `retraining`, trains. Or a function of the checkpoint's own data settings that gives them.
        retraining: Train with the regulariser before. It goes on where a killed call stopped.
        code: Of the indices.
        input_size: (c, h, w) for the energy; that of the images, or what the network says, where `None`.
        seed: Of all that is drawn.
        device: Where to compute.
        progress: Called with the share of the re-training that is done.

    Returns:
        Sizes, accuracies, energies.

    Raises:
        FileNotFoundError: A file or folder is missing.
        ValueError: What does not fit; re-training without images.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} into")
    source = load_network(checkpoint, model, arguments)
    images = data(source.data) if callable(data) else data
    if retraining is not None and images is None:
        raise ValueError("re-training needs images: a folder with train/<class>/* and val/<class>/*")
    network, notes = source.model.to(device), []
    accuracy: dict[str, float] = {}
    settings: dict[str, Any] = {"layers": layers, "seed": seed}
    before = cluster_weights(network, clusters, core_ratio, **settings)  # whatever is wrong is said before any work
    chosen = before
    if images is not None:
        _fits(network, images, device)
        accuracy["before"] = measure(network, images, device)
        accuracy["clustered"] = measure(before, images, device)
        if _adjust(before, images, device):
            accuracy["clustered, batch norms re-estimated"] = measure(before, images, device)
    if retraining is not None and images is not None:
        task = _retrain(network, images, retraining, clusters, core_ratio, layers, out, seed, device, progress)
        chosen = task.best().to(device)
        accuracy["re-trained"] = measure(task.model.to(device), images, device)
        accuracy["re-trained and clustered"] = measure(chosen, images, device)
    size = save_compressed(chosen, out, code=code, about=source.about)
    plain = chosen.materialize()
    whole = len(save({key: value.cpu().contiguous() for key, value in plain.state_dict().items()}))
    reports = {name: compression_report(plain, chosen, code=name) for name in ("entropy", "huffman", "fixed")}
    energy: dict[str, float] = {}
    shape = input_size or ((images.channels, images.side, images.side) if images is not None else None)
    shape = shape or (default_input(network) or (None,))[1:]
    if shape:
        found = energy_report(chosen, shape)
        energy = {"before": found.uncompressed / 1e6, "after": found.total / 1e6, "ratio": found.ratio}
    else:
        notes.append("no energy estimate: the size of the input is not known (--input)")
    if images is None:
        notes.append("no accuracy: no images were given (--validate, --retrain)")
    errors = {name: layer.relative_error for name, layer in (chosen if retraining is None else before).layers.items()}
    if retraining is not None:
        errors = task.final_errors
    lines = [
        LayerLine(layer.name, layer.clusters, layer.rows, errors[layer.name], layer.entropy)
        for layer in reports["entropy"].layers
        if layer.clusters
    ]
    accounted = {name: report.ratio for name, report in reports.items()}
    result = Compressed(str(out), str(checkpoint), whole, size, whole / size, accounted, accuracy, energy, lines, notes)
    out.with_suffix(".json").write_text(result.json() + "\n", encoding="utf-8")
    return result


def decompress(file: str | Path, out: str | Path) -> int:
    """Write the weights of a compressed file as an ordinary state dict.

    Args:
        file: From `compress`.
        out: A safetensors file.

    Returns:
        Number of tensors.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A damaged file.
    """
    from saccade.checkpoints import write_state

    if Path(out).suffix != ".safetensors":
        raise ValueError(
            f"the weights are written as safetensors and should end in .safetensors, not {Path(out).name!r}"
        )
    state = read_compressed(file).state
    write_state(state, out)
    return len(state)


@torch.no_grad()
def measure(network: nn.Module, images: ImageClasses, device: str) -> float:
    """Accuracy on the validation images, 0 to 1."""
    network.to(device).eval()
    right = count = 0
    for batch in make_loader(
        images.val_set(), images.batch_size, num_workers=images.num_workers, collate=images.collate
    ):
        found = network(batch[0].to(device)).argmax(1).cpu()
        right, count = right + int((found == batch[1]).sum()), count + len(batch[1])
    return right / count


def _fits(network: nn.Module, images: ImageClasses, device: str) -> None:
    sample = images.val_set()[0]
    if sample is None:
        return
    try:
        with torch.no_grad():
            logits = network.eval()(sample[0][None].to(device))
    except (RuntimeError, ValueError, TypeError) as error:
        shape = tuple(sample[0].shape)
        raise ValueError(f"the network cannot take images of {shape}: {str(error).splitlines()[0]}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[1] < images.num_classes:
        what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"the network gives {what} for one image, wanted (1, {images.num_classes}): one logit a class")


def _adjust(clustered: ClusteredModel, images: ImageClasses, device: str) -> bool:
    """Re-estimate batch norms on training images, where there are both."""
    has_training = images.layout != "folder" or (images.root / "train").is_dir()
    if not has_training or not find_layers(clustered, nn.modules.batchnorm._BatchNorm):
        return False
    loader = make_loader(images.calibration_set(), images.batch_size, train=True, collate=images.collate)
    recalibrate_bn(clustered, (batch[0].to(device) for batch, _ in zip(loader, range(100), strict=False)))
    return True


class _Share(Callback):
    def __init__(self, progress: Callable[[float], None]) -> None:
        self.progress = progress

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Report the share that is done."""
        self.progress(trainer.global_step / max(float(trainer.estimated_stepping_batches), 1.0))


class _Retraining(ClusteredClassification):
    """The task, with the clustering error that the kept state had."""

    @property
    def final_errors(self) -> dict[str, float]:
        """Of each layer, of the network as it was last."""
        return {name: layer.relative_error for name, layer in self.cluster().layers.items()}


def _retrain(
    network: nn.Module, images: ImageClasses, how: Retraining, clusters: int | Mapping[str, int],
    core_ratio: float | Mapping[str, float], layers: Sequence[str] | None, out: Path, seed: int, device: str,
    progress: Callable[[float], None] | None,
) -> _Retraining:  # fmt: skip
    """Train with the regulariser; what is needed to go on after a kill lies beside the file until the end."""
    if how.epochs < 1 or how.lr <= 0:
        raise ValueError(f"re-training takes at least one epoch and a positive rate, not {how.epochs} and {how.lr}")
    total = how.epochs * max(1, len(images.train_dataloader()))
    task = _Retraining(
        network.cpu(), images.num_classes, clusters if isinstance(clusters, int) else dict(clusters),
        dict(core_ratio) if isinstance(core_ratio, Mapping) else core_ratio, how.lam, how.ramp,
        layers=list(layers) if layers is not None else None,
        optimizer=lambda groups: SGD(groups, lr=how.lr, momentum=0.9, weight_decay=1e-4),
        lr_scheduler=lambda optimizer: CosineAnnealingLR(optimizer, total), schedule="step",
    )  # fmt: skip
    folder = out.with_name(out.name + ".retraining")
    folder.mkdir(exist_ok=True)
    described = json.dumps(
        [asdict(how), clusters, core_ratio, layers, seed, str(images.root), images.layout], default=dict
    )
    note = folder / "settings.json"
    if note.is_file() and note.read_text(encoding="utf-8") != described:
        raise ValueError(f"{folder} holds a re-training with other settings: remove it, or choose another --out")
    note.write_text(described, encoding="utf-8")
    last = folder / "last.ckpt"
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    on_gpu = device.startswith("cuda")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=[torch.device(device).index or 0] if on_gpu else 1,
            max_epochs=how.epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=str(folder),
            callbacks=[StepSeeds(seed), LastCheckpoint(folder), *([_Share(progress)] if progress else [])],
            plugins=[AtomicCheckpointIO()],
        )
        trainer.fit(task, images, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    shutil.rmtree(folder)
    return task


def parse_clusters(text: str, kind: type[int] | type[float] = int) -> Any:
    """One number, `layer=number,...`, or a JSON or YAML file with a mapping.

    Args:
        text: As on the command line.
        kind: Of the numbers.

    Returns:
        A number, or layer names to numbers.

    Raises:
        ValueError: Anything else.

    Example:
        >>> parse_clusters("16"), parse_clusters("conv1=8,layer1.0.conv1=4")
        (16, {'conv1': 8, 'layer1.0.conv1': 4})
    """
    try:
        if text.endswith((".json", ".yaml", ".yml")):
            content = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"{text} holds no mapping of layers to numbers")
            return {str(name): kind(value) for name, value in content.items()}
        if "=" not in text:
            return kind(text)
        return {name.strip(): kind(value) for name, _, value in (part.rpartition("=") for part in text.split(","))}
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"wanted a number, layer=number,... or a file of these, not {text!r} ({error})") from None
