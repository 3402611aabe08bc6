"""The recipes of DSBN run on miniatures in the real layouts, stage after stage; checkpoints convert."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from saccade.adaptation.checkpoints import (
    convert_dsbn_centroids,
    convert_dsbn_checkpoint,
    convert_dsbn_discriminator,
)
from saccade.adaptation.dsbn_networks import dsbn_discriminator, dsbn_lenet, dsbn_resnet
from saccade.adaptation.mstn import MSTN
from saccade.checkpoints import load_strict, read_state
from saccade.cli import main
from saccade.training.recipes import recipes
from tests.adaptation.test_datasets import write

RECIPES = [name for name in recipes() if name.startswith("adaptation/dsbn-")]


def arguments(name: str, root: Path) -> list[str]:
    made = ["--config", name, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    if name.endswith("digits"):
        return [*made, "--data.iterations", "2"]
    layout = name.removeprefix("adaptation/dsbn-").rpartition("-")[0]
    if not (root / "Office").exists() and not (root / "VisDA").exists():
        write(root, layout)
    method = "--model.init_args.method.init_args"
    small = ["--data.root", str(root), "--data.size", "32", "--data.num_workers", "0", "--data.iterations", "2"]
    small += ["--data.source_batch", "2", "--data.target_batch", "2"]
    for network in ["classifier", *(["teacher"] if name.endswith("stage2") else [])]:
        small += [f"{method}.{network}.init_args.{key}={value}" for key, value in SMALL.items()]
    return [*made, *small]


SMALL = {"name": "resnet18", "pretrained": "false"}


def test_every_data_set_and_stage_has_one() -> None:
    found = {name.removeprefix("adaptation/dsbn-") for name in RECIPES}
    stages = {
        f"{data}-{stage}" for data in ("office31", "office-home", "visda") for stage in ("mstn", "cpua", "stage2")
    }
    assert found == {*stages, "office31-multi", "office-home-multi", "digits"}


@pytest.mark.filterwarnings("ignore:no source image has class")
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_on_a_miniature(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *arguments(name, tmp_path), "--trainer.fast_dev_run", "true"]) == 0, capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:no source image has class")
def test_the_stages_follow_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    once = ["--trainer.max_epochs", "1"]
    first = arguments("adaptation/dsbn-office31-mstn", tmp_path)
    assert main(["fit", *first, *once, "--folder", "first"]) == 0, capsys.readouterr().err
    weights = "--model.init_args.method.init_args.teacher_weights"
    for number, teacher in (("second", "first"), ("third", "second")):
        command = [*arguments("adaptation/dsbn-office31-stage2", tmp_path), *once, weights, f"{teacher}/last.ckpt"]
        assert main(["fit", *command, "--folder", number]) == 0, capsys.readouterr().err
        taught, before = (read_state(tmp_path / folder / "last.ckpt") for folder in (number, teacher))
        key = "layer4.0.bn1.bns.1.weight"
        assert torch.equal(taught[f"method.teacher.{key}"], before[f"method.classifier.{key}"])
    assert main(["test", *arguments("adaptation/dsbn-office31-stage2", tmp_path), "--folder", "third"]) == 0


def test_the_authors_checkpoints_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = dsbn_resnet("resnet18", 7, in_features=4)
    file = tmp_path / "best_resnet50dsbn+None+i4_amazon2webcam.pth"
    saved = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"model": saved, "iteration": 20000, "options": Namespace(batch_size=40)}, file)
    out = tmp_path / "ours.safetensors"
    assert main(["convert", "dsbn", str(file), str(out)]) == 0, capsys.readouterr().err
    other = dsbn_resnet("resnet18", 7, in_features=4)
    load_strict(other, read_state(out))
    assert torch.equal(other.fc2.weight, network.fc2.weight)
    lenet = dsbn_lenet(in_features=3)
    load_strict(lenet, convert_dsbn_checkpoint(lenet.state_dict()))


def test_unknown_keys_of_a_checkpoint_are_listed() -> None:
    state = dsbn_lenet().state_dict()
    with pytest.raises(ValueError, match=r"1 key\(s\) that are not known here: bn1.weight"):
        convert_dsbn_checkpoint({**state, "bn1.weight": torch.zeros(20)})
    judge = dsbn_discriminator(5, "photos")
    authors = {f"discriminator.{key}": value for key, value in judge.state_dict().items()}
    load_strict(judge, convert_dsbn_discriminator(authors))
    with pytest.raises(ValueError, match=r"not known here: 0\.weight"):
        convert_dsbn_discriminator(judge.state_dict())


def test_the_authors_centroids_convert() -> None:
    loss = MSTN(3, 2, sources=2, discriminator="digits")
    saved = {
        "srcs_centroids": [{"centroids": torch.randn(3, 2)} for _ in range(2)],
        "trgs_centroids": [{"centroids": torch.randn(3, 2)}],
    }
    state = convert_dsbn_centroids(saved)
    load_strict(loss, {**{k: v for k, v in loss.state_dict().items() if k.startswith("discriminators")}, **state})
    assert torch.equal(loss.source_centroids[1].centroids, saved["srcs_centroids"][1]["centroids"])
    with pytest.raises(ValueError, match=r"not known here: centroids\.0\.centroids"):
        convert_dsbn_centroids({"centroids": saved["srcs_centroids"][:1]})
