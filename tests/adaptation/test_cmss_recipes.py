"""The recipes of CMSS on miniatures in the real layouts, and the reading of Digits-Five."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from saccade.adaptation.digits_five_data import DOMAINS, ByteImages, DigitsFive, load_digits_five
from saccade.cli.main import main
from saccade.training.recipes import recipes

OURS = sorted(name for name in recipes() if name.startswith("adaptation/cmss-"))


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), (37 * number) % 256, np.uint8)).save(path)


def write_folders(base: Path, domains: list[str], classes: list[str]) -> None:
    for domain in domains:
        for label, name in enumerate(classes):
            for number in range(2):
                picture(base / domain / name / f"{number}.jpg", label)


def write_pacs(root: Path) -> None:
    names = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]
    write_folders(root / "PACS", ["art_painting", "cartoon", "photo", "sketch"], names)


def write_office_caltech(root: Path) -> None:
    names = [f"class{at}" for at in range(10)]
    write_folders(root / "office_caltech_10", ["amazon", "caltech", "dslr", "webcam"], names)


def write_domainnet(root: Path) -> None:
    base = root / "DomainNet"
    for domain in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"):
        write_folders(base, [domain], ["airplane", "zebra"])
        for part in ("train", "test"):
            lines = [
                f"{domain}/{name}/{at}.jpg {label}" for label, name in enumerate(("airplane", "zebra")) for at in (0, 1)
            ]
            (base / f"{domain}_{part}.txt").write_text("\n".join(lines) + "\n")


def write_digits_five(root: Path, count: int = 6) -> None:
    """As M3SDA's authors pack them: each file has keys, axes, ranges and labels of its own."""
    random, folder = np.random.RandomState(0), root / "Digit-Five"
    folder.mkdir(parents=True)
    labels = np.arange(count) % 10
    one_hot = np.eye(10)[labels]

    def pixels(*shape: int) -> np.ndarray:
        return random.randint(0, 256, shape).astype(np.uint8)

    savemat(
        folder / "mnist_data.mat",
        {
            "train_32": pixels(count, 32, 32),
            "test_32": pixels(count, 32, 32),
            "label_train": one_hot,
            "label_test": one_hot,
        },
    )
    savemat(
        folder / "mnistm_with_label.mat",
        {
            "train": pixels(count, 28, 28, 3),
            "test": pixels(count, 28, 28, 3),
            "label_train": one_hot,
            "label_test": one_hot,
        },
    )
    for part in ("train", "test"):
        wrapped = np.where(labels == 0, 10, labels)[:, None]
        savemat(folder / f"svhn_{part}_32x32.mat", {"X": pixels(32, 32, 3, count), "y": wrapped})
    savemat(
        folder / "syn_number.mat",
        {
            "train_data": pixels(count, 32, 32, 3),
            "test_data": pixels(count, 32, 32, 3),
            "train_label": labels[None],
            "test_label": labels[:, None],
        },
    )
    nested = np.empty((2, 2), dtype=object)
    for split in (0, 1):
        nested[split, 0], nested[split, 1] = random.rand(count, 1, 28, 28), labels[:, None]
    savemat(folder / "usps_28x28.mat", {"dataset": nested})


WRITE: dict[str, Callable[[Path], None]] = {
    "digits-five": write_digits_five,
    "domainnet": write_domainnet,
    "office-caltech": write_office_caltech,
    "pacs": write_pacs,
}


def test_there_is_one_for_each_data_set_with_figure_cost_and_command() -> None:
    assert [f"adaptation/cmss-{name}" for name in WRITE] == OURS
    for name in OURS:
        head = re.match(r"(#.*\n)+", recipes()[name].read_text())[0]
        for word in ("Expected:", "Cost:", "Layout:", "Choices:", f"Command:  saccade fit --config {name} "):
            assert word in head, f"{name} lacks {word}"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", OURS)
def test_every_recipe_runs_on_a_miniature(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    layout = name.removeprefix("adaptation/cmss-")
    WRITE[layout](tmp_path)
    arguments = ["fit", "--config", name, "--data.root", str(tmp_path), "--trainer.accelerator", "cpu"]
    arguments += ["--trainer.fast_dev_run", "true", "--data.num_workers", "0", "--data.iterations", "2"]
    arguments += ["--data.source_batch", "2", "--data.target_batch", "2"]
    if layout != "digits-five":
        method = "--model.init_args.method.init_args"
        arguments += ["--data.size", "32"]
        for part in ("classifier", "manager"):
            arguments += [f"{method}.{part}.init_args.name", "resnet18"]
            arguments += [f"{method}.{part}.init_args.pretrained", "false"]
    assert main(arguments) == 0, capsys.readouterr().err


def test_digits_five_is_read_whatever_its_files_look_like(tmp_path: Path) -> None:
    write_digits_five(tmp_path, count=12)
    for name in DOMAINS:
        for split in ("train", "test"):
            images, labels = load_digits_five(tmp_path, name, split)
            assert images.shape == (12, 3, 32, 32)
            assert images.dtype == torch.uint8
            assert images.max() > 200
            assert labels.tolist() == [*range(10), 0, 1]
    data = DigitsFive(root=str(tmp_path), most=(5, 4), source_batch=3, target_batch=2)
    sources, targets, few = data.train_images()
    assert [len(part) for part in sources] == [5, 5, 5, 5]
    assert few is None
    assert all(part.labels is not None for part in sources)
    assert targets[0].labels is None
    assert len(data.test_images()) == 4
    loaded = sources[0].load(torch.tensor([0, 4]))
    assert float(loaded.images.min()) >= -1.0
    assert float(loaded.images.max()) <= 1.0
    merged = DigitsFive(root=str(tmp_path), most=(5, 4), merge_sources=True)
    assert [len(part) for part in merged.train_images()[0]] == [20]
    again = DigitsFive(root=str(tmp_path), most=(5, 4))
    assert torch.equal(again.train_images()[0][0].images, sources[0].images)


def test_an_svhn_image_is_turned_the_right_way(tmp_path: Path) -> None:
    (tmp_path / "Digit-Five").mkdir()
    image = np.random.RandomState(1).randint(0, 256, (32, 32, 3, 2)).astype(np.uint8)
    savemat(tmp_path / "Digit-Five" / "svhn_train_32x32.mat", {"X": image, "y": np.array([[10], [3]])})
    images, labels = load_digits_five(tmp_path, "svhn", "train")
    assert np.array_equal(images[1].permute(1, 2, 0).numpy(), image[..., 1])
    assert labels.tolist() == [0, 3]


@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_with_digits_five_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Digits-Five, mnist is not at .*mnist_data.mat; .* M3SDA"):
        load_digits_five(tmp_path, "mnist", "train")
    folder = tmp_path / "Digit-Five"
    folder.mkdir()
    (folder / "mnist_data.mat").write_bytes(b"no matlab" * 40)
    with pytest.raises(ValueError, match=r"mnist_data.mat is not a MATLAB file"):
        load_digits_five(tmp_path, "mnist", "train")
    savemat(folder / "mnist_data.mat", {"images": np.zeros((2, 32, 32))})
    with pytest.raises(ValueError, match=r"train_32 and label_train do not hold .*; there is images"):
        load_digits_five(tmp_path, "mnist", "train")
    savemat(folder / "mnist_data.mat", {"train_32": np.zeros((2, 32, 32)), "label_train": np.eye(10)})
    with pytest.raises(ValueError, match="holds 2 images and 10 classes for train"):
        load_digits_five(tmp_path, "mnist", "train")
    savemat(folder / "mnist_data.mat", {"train_32": np.zeros((2, 32, 32)), "label_train": np.array([[3], [12]])})
    with pytest.raises(ValueError, match="classes from 3 to 12"):
        load_digits_five(tmp_path, "mnist", "train")
    with pytest.raises(ValueError, match="no domain 'emnist'; there is mnist, mnist-m"):
        DigitsFive(["emnist"])
    with pytest.raises(ValueError, match="none twice"):
        DigitsFive(["mnist"], ["mnist"])
    with pytest.raises(ValueError, match=r"most is \(0, 1\)"):
        DigitsFive(most=(0, 1))
    with pytest.raises(ValueError, match="0 images with no labels"):
        ByteImages(torch.zeros(0, 3, 32, 32, dtype=torch.uint8))
