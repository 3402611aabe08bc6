"""The recipes, on a miniature in the real layout and on the world, as a person types them."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from saccade.checkpoints import read_state
from saccade.cli import main
from saccade.graph.base import MLP
from saccade.graph.datamodule import CitationGraph
from saccade.graph.task import NodeClassification
from saccade.training.recipes import recipes
from tests.graph.miniature import write_planetoid

GRAPH = [name for name in recipes() if name.startswith("graph/")]


def test_there_are_recipes() -> None:
    assert {name.rpartition("-")[2] for name in GRAPH} == {"cora", "citeseer", "citations"}


@pytest.mark.parametrize("name", GRAPH)
def test_every_recipe_runs_on_a_miniature(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.accelerator", "cpu", "--model.init_args.num_trials", "3"]
    data = name.rpartition("-")[2]
    if data == "citations":
        small += ["--data.num_nodes", "200"]
    else:
        write_planetoid(tmp_path / "planetoid", data)
        small += ["--data.root", str(tmp_path)]
        small += ["--model.init_args.model.init_args.in_features", "8"]
        small += ["--model.init_args.model.init_args.num_classes", "3"]
    assert main(["fit", "--config", name, *small, "--trainer.max_epochs", "2"]) == 0, capsys.readouterr().err
    assert main(["test", "--config", name, *small]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "test/base_accuracy" in printed
    assert "test/accuracy_with_valid_labels" in printed
    assert main(["predict", "--config", name, *small]) == 0, capsys.readouterr().err
    predicted = read_state(tmp_path / "runs" / "fit" / name / "predictions.safetensors")
    assert predicted["scores"].shape == predicted["base"].shape
    torch.testing.assert_close(predicted["base"].sum(1), torch.ones(len(predicted["base"])))


def test_a_missing_file_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_planetoid(tmp_path, "cora", with_features=False)
    assert main(["fit", "--config", "graph/correct-and-smooth-cora", "--data.root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "lacks ind.cora.allx, ind.cora.tx" in error
    assert error.count("\n") == 1


def test_the_kept_state_is_the_best_and_smoothing_improves_it() -> None:
    data = CitationGraph("citations", num_nodes=600)
    whole = data.whole
    task = NodeClassification(
        MLP(1000, 7, hidden=16), num_trials=20, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01)
    )
    trainer = Trainer(
        max_epochs=40, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(task, data)
    task.eval()
    with torch.no_grad():
        valid = whole.split.valid
        accuracy = (task(whole.features)[valid].argmax(1) == whole.labels[valid]).float().mean()
        assert accuracy == task.best_accuracy > 0.3
        found = task.predict_step(whole, 0)
    with torch.inference_mode():
        assert CitationGraph("citations", num_nodes=2000).whole.labels.is_inference() is False
    test = whole.split.test
    base, smoothed = (
        (scores[test].argmax(1) == whole.labels[test]).float().mean() for scores in (found.base, found.scores)
    )
    assert smoothed > base + 0.05
