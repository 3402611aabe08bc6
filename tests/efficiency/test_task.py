"""Training: what is kept, what is resumed, the recipes on miniatures, the authors' checkpoints."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import Trainer
from PIL import Image
from torch import nn

from saccade.checkpoints import read_state
from saccade.cli import main
from saccade.efficiency import WideResNet, compression_report, load_compressed, wide_resnet_setting
from saccade.efficiency.checkpoints import convert
from saccade.efficiency.datasets import ImageClasses, load_cifar10
from saccade.efficiency.networks import SmallClassifier
from saccade.efficiency.task import ClusteredClassification, network_state
from saccade.efficiency.wide_resnet import from_state
from saccade.training import fit
from saccade.training.recipes import find_recipe, recipes
from tests.parity.fixtures import fill

EFFICIENCY = [n for n, file in recipes().items() if n.startswith("efficiency/") and "\ntrainer:" in file.read_text()]
"""Those of `saccade fit`; the others search or measure."""


class Few(ImageClasses):
    def __init__(self, images: int = 192) -> None:
        super().__init__("digits", held_out=1200 - images, batch_size=32)


def sgd(lr: float):
    return lambda groups: torch.optim.SGD(groups, lr=lr, momentum=0.9)


def quiet(**options) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def write_cifar(root: Path, binary: bool = False, per_file: int = 30) -> None:
    random = np.random.default_rng(0)
    folder = root / f"cifar-10-batches-{'bin' if binary else 'py'}"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = random.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        labels = [int(label) for label in random.integers(0, 10, per_file)]
        if binary:
            rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels, "batch_label": name}, 4))


def write_mnist(root: Path, images: int = 60) -> None:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for stem in ("train", "t10k"):
        head = b"\0\0\x08\x03" + np.array([images, 28, 28], ">i4").tobytes()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(head + bytes(images * 784))
        labels = bytes(i % 10 for i in range(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + np.array([images], ">i4").tobytes() + labels
        )


def write_folder(root: Path, size: int = 40, parts: tuple[str, ...] = ("train", "val")) -> None:
    for part in parts:
        for number in range(6):
            path = root / part / f"n0{number % 2}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((size, size + 9, 3), 90 * (number % 2), np.uint8)).save(path)


def test_the_best_clustered_copy_is_kept_and_is_what_the_file_holds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ClusteredClassification(
        SmallClassifier(), 10, clusters=6, lam=2.0, ramp=True, optimizer=sgd(0.05), compressed="net.skm"
    )
    data = ImageClasses("digits", held_out=200, batch_size=64)
    seen: list[float] = []
    keep = task.on_validation_epoch_end

    def note() -> None:
        keep()
        seen.append(float(task.trainer.callback_metrics["val/clustered_accuracy"]))

    task.on_validation_epoch_end = note
    trainer = quiet(max_epochs=4, default_root_dir=str(tmp_path), num_sanity_val_steps=0)
    trainer.fit(task, data)
    assert float(task.best_accuracy) == pytest.approx(max(seen))
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {"val/accuracy", "val/clustered_accuracy_without_bn", "val/relative_error", "val/used_clusters"} <= set(
        found
    )
    assert found["val/used_clusters"] == 18
    loaded = load_compressed(tmp_path / "net.skm", SmallClassifier()).materialize().state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in task.kept.state_dict().items())
    report = compression_report(task.kept, task.best())
    assert [layer.distinct for layer in report.layers if layer.clusters] == [6, 6, 6]
    tested = trainer.test(task, data, verbose=False)[0]
    assert {"test/accuracy", "test/clustered_accuracy"} <= set(tested)
    images = torch.stack([data.test_set()[i][0] for i in range(4)])
    torch.testing.assert_close(task.predict_step(images).probabilities.sum(1), torch.ones(4))
    assert task.errors[-1][1] < task.errors[0][1]


def test_the_regulariser_pulls_and_plain_training_does_not() -> None:
    errors = {}
    for clusters in (None, 6):
        torch.manual_seed(0)
        task = ClusteredClassification(SmallClassifier(), 10, clusters=clusters, lam=5.0, optimizer=sgd(0.02))
        fit(task, Few(), epochs=3)
        task.clusters = 6
        task.regularizer = None
        errors[clusters] = np.mean([layer.relative_error for layer in task.cluster().layers.values()])
    assert errors[6] < 0.25 * errors[None]


def test_spectral_on_rows_trains_as_if_it_were_not_there() -> None:
    states = []
    for options in ({}, {"clusters": 8, "lam": 3.0, "relaxation": "spectral"}):
        torch.manual_seed(0)
        task = ClusteredClassification(SmallClassifier(), 10, optimizer=sgd(0.02), **options)
        if options:
            with pytest.warns(UserWarning, match="does nothing"):
                fit(task, Few(), epochs=1)
        else:
            fit(task, Few(), epochs=1)
        states.append(task.model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_assignments_are_refreshed_every_so_many_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.efficiency import KMeansRegularizer

    updates = []
    real = KMeansRegularizer.update
    monkeypatch.setattr(KMeansRegularizer, "update", lambda self: (updates.append(1), real(self))[1])
    task = ClusteredClassification(SmallClassifier(), 10, clusters=4, update_every=2, optimizer=sgd(0.01))
    fit(task, Few(64), epochs=5)
    assert len(updates) == 3  # at the start, and before the third and fifth epoch


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    def run(epochs: int, resume: str | None = None) -> ClusteredClassification:
        torch.manual_seed(0)
        task = ClusteredClassification(
            SmallClassifier(), 10, clusters=5, lam=1.0, update_every=2, bn_batches=3, optimizer=sgd(0.05)
        )
        trainer = quiet(max_epochs=epochs, num_sanity_val_steps=0, default_root_dir=str(tmp_path))
        trainer.fit(task, Few(), ckpt_path=resume, weights_only=True if resume else None)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return task

    whole = run(3)
    run(1)
    resumed = run(3, str(tmp_path / "1.ckpt"))
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    assert all(torch.equal(v, resumed.regularizer.state_dict()[k]) for k, v in whole.regularizer.state_dict().items())


def test_a_network_starts_from_what_another_run_kept(tmp_path: Path) -> None:
    first = ClusteredClassification(SmallClassifier(), 10, optimizer=sgd(0.05))
    trainer = quiet(max_epochs=1, default_root_dir=str(tmp_path))
    trainer.fit(first, Few())
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    second = ClusteredClassification(
        SmallClassifier(), 10, clusters=4, optimizer=sgd(0.0), init_from=str(tmp_path / "first.ckpt")
    )
    fit(second, Few(), steps=1)
    assert torch.equal(second.model.conv1.weight, first.kept.conv1.weight)
    assert network_state(first.kept.state_dict()).keys() == first.kept.state_dict().keys()


def test_labels_beyond_the_classes_are_named() -> None:
    task = ClusteredClassification(SmallClassifier(num_classes=4), 4, optimizer=sgd(0.1))
    with pytest.raises(ValueError, match=r"labels go from \d to \d: 0 to 3 is accepted"):
        fit(task, Few(), steps=1)
    for options in ({"num_classes": 1}, {"num_classes": 3, "update_every": 0}, {"num_classes": 3, "bn_batches": -1}):
        with pytest.raises(ValueError, match="num_classes has to be at least 2, update_every at least 1"):
            ClusteredClassification(SmallClassifier(), **options)


@pytest.mark.parametrize("name", EFFICIENCY)
def test_every_recipe_runs_on_a_miniature(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "--config", name, "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    arguments += ["--data.batch_size", "8", "--data.num_workers", "0"]
    if "cifar10" in name:
        write_cifar(tmp_path)
        arguments += ["--data.root", str(tmp_path), "--data.held_out", "20"]
    elif "mnist" in name:
        write_mnist(tmp_path)
        arguments += ["--data.root", str(tmp_path), "--data.held_out", "20"]
    elif "imagenet" in name:
        write_folder(tmp_path)
        arguments += ["--data.root", str(tmp_path), "--data.size", "64", "--model.init_args.clusters", "4"]
        arguments += ["--model.init_args.bn_batches", "1"]
    assert main(arguments) == 0, capsys.readouterr().err


def test_the_recipes_have_the_authors_settings() -> None:
    for ratio in (45, 47, 50):
        content = yaml.safe_load(find_recipe(f"efficiency/deep-k-means-wrn-cifar10-{ratio}")[1].read_text())
        settings = content["model"]["init_args"]
        assert (settings["clusters"], settings["core_ratio"]) == wide_resnet_setting(ratio)
    with pytest.raises(ValueError, match="45, 47 and 50, not 46"):
        wide_resnet_setting(46)


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_is_read_from_both_layouts(tmp_path: Path, binary: bool) -> None:
    write_cifar(tmp_path / "cifar10", binary)
    images, labels = load_cifar10(tmp_path, True)
    assert images.shape == (150, 3, 32, 32)
    assert labels.dtype == torch.int64
    data = ImageClasses("cifar10", str(tmp_path), held_out=30, augment="shift-flip")
    assert (len(data.train_set()), len(data.val_set()), len(data.test_set())) == (120, 30, 30)
    assert not {tuple(data.train_set().indices)} & {tuple(data.val_set().indices)}


def test_missing_and_damaged_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10 is not at .*data_batch_1"):
        load_cifar10(tmp_path, True)
    write_cifar(tmp_path, True)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"test_batch.bin has 5 bytes, wanted a multiple of 3,073"):
        load_cifar10(tmp_path, False)
    other = tmp_path / "other" / "cifar-10-batches-py"
    other.mkdir(parents=True)
    (other / "test_batch").write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}))
    with pytest.raises(ValueError, match="test_batch lacks data or labels"):
        load_cifar10(tmp_path / "other", False)
    write_folder(tmp_path / "mine")
    write_folder(tmp_path / "mine" / "val" / "extra", parts=("a",))
    with pytest.raises(ValueError, match="has other class folders than"):
        ImageClasses("folder", str(tmp_path / "mine"), 32).val_set()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "svhn"}, "no layout 'svhn'"),
        ({"layout": "folder"}, "a folder needs a size"),
        ({"augment": "mixup"}, "not 'mixup'"),
        ({"std": (0.0,)}, "std has to be positive"),
        ({"mean": (0.1, 0.2)}, "images 1 channel"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_data_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageClasses(**settings)


def test_more_held_out_than_there_is_is_named() -> None:
    with pytest.raises(ValueError, match="held_out is 1200; there are 1200 training images"):
        ImageClasses(held_out=1200).train_set()


def authors_state(depth: int = 16, width: int = 2) -> dict[str, torch.Tensor]:
    shapes = {key: tuple(value.shape) for key, value in WideResNet(depth, width).state_dict().items()}
    state = fill("crc32", shapes)
    return {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def test_the_authors_checkpoints_convert(tmp_path: Path) -> None:
    state = authors_state()
    old = {"epoch": 3, "best_prec1": 0.9, "state_dict": state}
    path = tmp_path / "model_retrained_45x.pth.tar"
    torch.save(old, path, _use_new_zipfile_serialization=False)  # as PyTorch 0.3 wrote
    assert main(["convert", "deep-k-means", str(path), str(tmp_path / "ours.safetensors")]) == 0
    model = from_state(read_state(tmp_path / "ours.safetensors"))
    assert torch.equal(model.layer3[1].conv2.weight, state["module.layer3.1.conv2.weight"])
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_checkpoints_that_do_not_fit_are_named() -> None:
    state = {key.removeprefix("module."): value for key, value in authors_state().items()}
    with pytest.raises(ValueError, match=r"1 key\(s\) that are not known here: layer4.0.conv1.weight"):
        convert({**state, "layer4.0.conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"1 key\(s\) missing: layer2.1.conv1.bias"):
        convert({key: value for key, value in state.items() if key != "layer2.1.conv1.bias"})
    with pytest.raises(ValueError, match="no Wide ResNet"):
        convert({})
    with pytest.raises(ValueError, match="depths are 10, 16, 22"):
        WideResNet(12)


def test_the_peculiarities_of_the_authors_network() -> None:
    model = WideResNet(16, 4)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 16
    assert all(conv.bias is not None for conv in convs)
    assert model.bn1.momentum == 0.9
    assert model.layer2[0].bn1.momentum == 0.1
    assert model.layer2[0].conv1.stride == (1, 1)
    assert model.layer2[0].conv2.stride == (2, 2)
    assert isinstance(model.layer1[0].shortcut[0], nn.Conv2d)
    assert len(model.layer1[0].shortcut) == 1
    assert len(model.layer1[1].shortcut) == 0
