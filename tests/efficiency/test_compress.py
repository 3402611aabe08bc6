"""`saccade compress` and `decompress`, as a person types them, and the claim's smoke run."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.checkpoints import read_state, write_state
from saccade.claims import engine
from saccade.cli import main
from saccade.efficiency import load_compressed
from saccade.efficiency.claims.deep_k_means import DEEP_K_MEANS
from saccade.efficiency.networks import SmallClassifier
from tests.efficiency.test_task import write_folder

ROOT = Path(__file__).parents[2]
CLAIM = "saccade.efficiency.claims.deep_k_means:DEEP_K_MEANS"
MODEL = ["--model", "saccade.efficiency.networks.SmallClassifier"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `saccade fit`."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        """
model:
  class_path: saccade.efficiency.task.ClusteredClassification
  init_args:
    model: {class_path: saccade.efficiency.networks.SmallClassifier}
    num_classes: 10
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 3e-3}}
data:
  class_path: saccade.efficiency.datasets.ImageClasses
  init_args: {layout: digits, held_out: 200, batch_size: 64}
trainer: {max_epochs: 3, accelerator: cpu, logger: false, enable_progress_bar: false}
"""
    )
    assert main(["fit", "--config", str(recipe), "--folder", str(folder / "run")]) == 0
    return folder / "run" / "last.ckpt"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_state(SmallClassifier().state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def error(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_weights_are_compressed_and_come_back(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.skm"
    command = ["compress", str(weights), *MODEL, "--clusters", "conv2=8,conv3=4", "--core-ratio", "conv3=0.5"]
    assert main([*command, "-o", str(out), "--input", "1,8,8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.with_suffix(".json").read_text())
    assert report["compressed_bytes"] == out.stat().st_size
    assert report["ratio"] == pytest.approx(report["float32_bytes"] / out.stat().st_size)
    assert report["ratio"] > 5
    assert [layer["clusters"] for layer in report["layers"]] == [8, 4]
    assert report["accounted"]["entropy"] > report["accounted"]["huffman"]
    assert 0 < report["energy"]["after"] < report["energy"]["before"]
    assert report["accuracy"] == {}
    assert any("no images were given" in note for note in report["notes"])
    assert main(["decompress", str(out), str(tmp_path / "back.safetensors")]) == 0
    back = read_state(tmp_path / "back.safetensors")
    assert back.keys() == read_state(weights).keys()
    assert torch.equal(back["conv1.weight"], read_state(weights)["conv1.weight"])
    loaded = load_compressed(out, SmallClassifier()).materialize()
    assert all(torch.equal(value, back[key]) for key, value in loaded.state_dict().items())


def test_re_training_before_clustering_pays(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.skm"
    command = ["compress", str(trained), "--clusters", "8", "-o", str(out), "--retrain", "digits"]
    assert main([*command, "--epochs", "3", "--lr", "0.02", "--lam", "5"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    report = json.loads(out.with_suffix(".json").read_text())
    accuracy = report["accuracy"]
    assert accuracy["before"] > 0.8
    assert accuracy["re-trained and clustered"] > accuracy["clustered"] + 0.1
    assert all(layer["relative_error"] < 0.05 for layer in report["layers"])
    assert f"{100 * accuracy['re-trained and clustered']:.2f} %" in printed
    assert not list(tmp_path.glob("*.retraining")), "what a killed run needs is not left behind"


def test_a_killed_re_training_goes_on_to_the_same_result(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "saccade", "compress", str(trained), "--clusters", "6", "-o", "net.skm"]
    command += ["--retrain", "digits", "--epochs", "6", "--batch-size", "16"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    killed = subprocess.Popen(command, cwd=tmp_path / "killed", env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "net.skm.retraining" / "last.ckpt").exists():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    for name in ("whole", "killed"):
        subprocess.run(command, cwd=tmp_path / name, env=environment, check=True, timeout=240, capture_output=True)
    assert (tmp_path / "whole" / "net.skm").read_bytes() == (tmp_path / "killed" / "net.skm").read_bytes()


def test_a_persons_own_folder_is_validated_on(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "mine")
    command = ["compress", str(weights), *MODEL, "--clusters", "8", "-o", str(tmp_path / "x.skm"), "--json"]
    assert main([*command, "--validate", str(tmp_path / "mine"), "--size", "16", "--grey"]) == 0, (
        capsys.readouterr().err
    )
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert set(accuracy) == {"before", "clustered", "clustered, batch norms re-estimated"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clusters", "100"], "layer 'conv1' has 48 rows: they form 1 to 48 clusters, not 100"),
        (["--clusters", "conv9=3"], "no layer 'conv9'"),
        (["--clusters", "linear=3"], "layer 'linear' is a Linear, wanted a convolution"),
        (["--clusters", "many"], "wanted a number, layer=number,... or a file of these, not 'many'"),
        (["--core-ratio", "1"], "core ratio has to be in [0, 1), not 1.0"),
        (["--validate", "nowhere"], "no image folder at nowhere"),
        (["--retrain", "digits", "--validate", "digits"], "give it or --validate"),
        (["--retrain", "digits", "--epochs", "0"], "at least one epoch"),
        (["--retrain", "digits", "--lam", "-1"], "lam has to be finite and not negative, not -1.0"),
        (["--validate", "mnist", "--size", "0"], "is not at"),
        (["--code", "zip"], "code is 'smallest', 'fixed' or 'huffman', not 'zip'"),
        (["--input", "a"], "--input is a list of numbers such as 3,32,32, not 'a'"),
        (["--input", "3,8,8"], "cannot take an input of (3, 8, 8)"),
        (["--out", "nowhere/x.skm"], "no folder nowhere to write x.skm into"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_done_is_one_line(
    weights: Path, tmp_path: Path, words: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    assert message in error(["compress", str(weights), *MODEL, "--clusters", "8", *words], capsys)


def test_checkpoints_that_cannot_be_opened_are_named(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "x.skm")]
    assert "give --model NAME" in error(["compress", str(weights), *out], capsys)
    assert "no checkpoint at" in error(["compress", str(tmp_path / "none"), *out], capsys)
    assert "does not fit" in error(["compress", str(weights), "--model", "resnet18", *out], capsys)
    write_folder(tmp_path / "mine")
    wide = ["--validate", str(tmp_path / "mine"), "--size", "16"]
    assert "cannot take images of (3, 16, 16)" in error(["compress", str(weights), *MODEL, *wide, *out], capsys)
    assert "--size" in error(["compress", str(weights), *MODEL, *wide[:2], *out], capsys)
    (tmp_path / "bad.skm").write_bytes(b"nothing")
    back = str(tmp_path / "b.safetensors")
    assert "is no compressed network" in error(["decompress", str(tmp_path / "bad.skm"), back], capsys)
    assert "safetensors" in error(["decompress", str(tmp_path / "bad.skm"), "b.pt"], capsys)


def test_another_re_training_is_not_gone_on_with(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "x.skm.retraining"
    folder.mkdir()
    (folder / "settings.json").write_text("[]")
    command = ["compress", str(trained), "--clusters", "4", "-o", str(tmp_path / "x.skm"), "--retrain", "digits"]
    assert "holds a re-training with other settings" in error(command, capsys)


def test_a_smoke_run_gives_every_arm_its_figures_and_pictures(tmp_path: Path) -> None:
    result = engine.reproduce(CLAIM, budget="smoke", jobs=0, out=tmp_path)
    assert {cell.arm for cell in result.cells} == set(DEEP_K_MEANS.arms)
    figures = {cell.arm: cell.metrics for cell in result.cells}
    assert figures["spectral"]["changed"] == 0
    assert figures["spectral"]["raw"] == figures["plain"]["raw"]
    assert all(metrics["identical"] == 1 for metrics in figures.values())
    assert all(metrics["file"] > 8 for metrics in figures.values())
    assert figures["deep-k-means"]["error"] < figures["cluster"]["error"]
    assert figures["centroids"]["error"] == figures["cluster"]["error"]
    pictures = [path for cell in result.cells for path in cell.pictures.values()]
    assert len(pictures) == 2
    for path in pictures:
        from PIL import Image

        pixels = np.asarray(Image.open(result.folder / path))
        assert min(pixels.shape[:2]) >= 300
        assert 0.02 < (pixels < 200).any(2).mean() < 0.9, "nothing is drawn"


@pytest.mark.parametrize("data", ["usps", "mnist"])
def test_the_claim_reads_real_data(data: str, tmp_path: Path, data_root: Path) -> None:
    if not (data_root / data).is_dir():
        pytest.skip(f"no {data} files")
    result = engine.reproduce(CLAIM, on=data, budget="smoke", jobs=0, out=tmp_path, data_root=data_root)
    assert all(0 <= cell.metrics["raw"] <= 100 for cell in result.cells)


def test_what_is_timed_ends_at_the_same_inertia() -> None:
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "deep_k_means.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for rows, width, k in ((40_000, 3, 20), (3_000, 5, 12)):
        compared = module.comparison(rows, width, k, target=1)
        assert compared.ours() <= 1.02 * compared.peer()
