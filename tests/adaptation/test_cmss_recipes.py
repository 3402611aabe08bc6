"""The recipes of CMSS on miniatures in the real layouts."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

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
    random, folder = np.random.RandomState(0), root / "Digits-Five"
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
            "train_label": labels[:, None],
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
    arguments += ["--trainer.fast_dev_run", "true", "--data.iterations", "2"]
    arguments += ["--data.source_batch", "2", "--data.target_batch", "2"]
    if layout != "digits-five":
        method = "--model.init_args.method.init_args"
        arguments += ["--data.size", "32", "--data.num_workers", "0"]
        for part in ("classifier", "manager"):
            arguments += [f"{method}.{part}.init_args.name", "resnet18"]
            arguments += [f"{method}.{part}.init_args.pretrained", "false"]
    assert main(arguments) == 0, capsys.readouterr().err
