"""`saccade adapt` as a person types it, on folders of pictures."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from saccade.adaptation.digits import digit_domain
from saccade.adaptation.verbs import METHODS, AdaptSettings, build, load_adapted
from saccade.cli import main

ROOT = Path(__file__).parents[2]
QUICK = ["--model", "small", "--size", "16", "--augment", "none", "--batch", "16", "--lr", "0.002"]


def folder(base: Path, look: str, part: int, count: int, labelled: bool) -> list[int]:
    """Digits 0, 1 and 2 as files; gives the classes in the order of the files."""
    made = digit_domain("digits", look, part=part, parts=2)
    chosen = [place for place, label in enumerate(made.train_labels.tolist()) if label < 3][:count]
    for number, place in enumerate(chosen):
        label = int(made.train_labels[place])
        path = base / (f"digit{label}" if labelled else f"day{number % 2}") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = ((made.train[place, 0] + 1) * 127.5).byte().numpy()
        Image.fromarray(grey).save(path)
    return [int(made.train_labels[place]) for place in chosen]


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("domains")
    folder(root / "source", "plain", 0, 150, labelled=True)
    labels = folder(root / "target", "dim", 1, 120, labelled=False)
    folder(root / "few", "dim", 0, 9, labelled=True)
    (root / "labels.json").write_text(json.dumps(labels))
    return root


def command(domains: Path, out: Path, *extra: str) -> list[str]:
    return ["adapt", str(domains / "source"), str(domains / "target"), "--out", str(out), *QUICK, *extra]


def answers(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_answers_confidences_and_a_picture(domains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(domains, tmp_path), "--method", "dann", "--iterations", "120", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["target_images"] == 120
    assert summary["held_out_source_accuracy"] > 0.9
    rows = answers(tmp_path)
    labels = json.loads((domains / "labels.json").read_text())
    right = [rows[f"day{n % 2}/{n:03d}.png"]["prediction"] == f"digit{label}" for n, label in enumerate(labels)]
    assert sum(right) / len(right) > 0.7
    for row in rows.values():
        shares = [float(row[f"digit{label}"]) for label in range(3)]
        assert sum(shares) == pytest.approx(1, abs=2e-4)
        assert float(row["confidence"]) == max(shares)
    with Image.open(tmp_path / "embeddings.png") as image:
        assert image.width > 600

    method, names, transform = load_adapted(tmp_path)
    assert names == ("digit0", "digit1", "digit2")
    with Image.open(domains / "target" / "day0" / "000.png") as image, torch.no_grad():
        said = method.predict(transform(image.convert("RGB"))[None])
    assert names[int(said.labels)] == rows["day0/000.png"]["prediction"]
    assert float(said.confidences) == pytest.approx(float(rows["day0/000.png"]["confidence"]), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs(domains: Path, tmp_path: Path, method: str) -> None:
    few = ["--labelled", str(domains / "few")] if METHODS[method].needs_labelled else []
    assert main([*command(domains, tmp_path), "--method", method, "--iterations", "3", *few]) == 0
    assert len(answers(tmp_path)) == 120
    load_adapted(tmp_path)


def test_a_killed_run_goes_on_and_ends_alike(domains: Path, tmp_path: Path) -> None:
    words = ["--method", "dann", "--iterations", "230"]
    assert main([*command(domains, tmp_path / "whole"), *words]) == 0
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "saccade", *command(domains, tmp_path / "killed"), *words], env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "last.ckpt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "predictions.csv").exists()
    assert main([*command(domains, tmp_path / "killed"), *words]) == 0
    assert (tmp_path / "killed" / "predictions.csv").read_text() == (tmp_path / "whole" / "predictions.csv").read_text()


def test_unreadable_images_are_left_out_and_counted(
    domains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    folder(target, "dim", 1, 20, labelled=False)
    (target / "day0" / "000.png").write_bytes(b"no image")
    words = ["adapt", str(domains / "source"), str(target), "--out", str(tmp_path / "out"), *QUICK]
    with pytest.warns(UserWarning, match="cannot be read as an image"):
        assert main([*words, "--method", "source-only", "--iterations", "2"]) == 0
    assert "1 images could not be read" in capsys.readouterr().out
    assert "day0/000.png" not in answers(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--method", "magic"], "no method 'magic'"),
        (["--iterations", "0"], "iterations 0"),
        (["--augment", "wild"], "augmentation is 'wild'"),
        (["--model", "resnet19"], "timm has no model 'resnet19'"),
        (["--also", "nowhere"], "no folder nowhere"),
    ],
)
def test_bad_settings(
    domains: Path, tmp_path: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(domains, tmp_path / "out"), "--method", "dann", *change]) == 2
    assert message in capsys.readouterr().err


def test_bad_folders(domains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "digit0").mkdir(parents=True)
    (tmp_path / "other" / "digit9").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "other" / "digit9" / "0.png")
    for source, target, message in (
        (domains / "source", tmp_path / "empty", "the target is empty"),
        (domains / "source", tmp_path / "nowhere", "no folder"),
        (tmp_path / "empty", domains / "target", "has no folders; one a class is wanted"),
    ):
        assert main(["adapt", str(source), str(target), "--out", str(tmp_path / "out"), "--method", "dann"]) == 2
        assert message in capsys.readouterr().err
    assert main([*command(domains, tmp_path / "out"), "--method", "dann", "--also", str(tmp_path / "other")]) == 2
    assert "only" in capsys.readouterr().err


def test_another_run_does_not_go_on_from_a_folder(
    domains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command(domains, tmp_path), "--method", "source-only"]
    assert main([*words, "--iterations", "2"]) == 0
    assert main([*words, "--iterations", "3"]) == 2
    assert "give --fresh to start anew" in capsys.readouterr().err
    assert main([*words, "--iterations", "3", "--fresh"]) == 0


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"settings\.json and model\.safetensors"):
        load_adapted(tmp_path)


def test_timms_networks_take_the_place_of_the_small_one() -> None:
    method = build(AdaptSettings(method="dann", model="resnet18"), 4, 1).eval()
    assert method.predict(torch.zeros(1, 3, 64, 64)).probabilities.shape == (1, 4)
