"""`saccade fit` and its sisters, in this process, on the recipe that needs no download."""

from pathlib import Path

import pytest
import torch

from saccade.checkpoints import read_state
from saccade.cli import main
from saccade.training.cli import EMBEDDED, load_task
from saccade.training.recipes import find_recipe, recipes

RECIPE = ["--config", "metric/proxy-anchor-digits"]
SHORT = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]
LAST = Path("runs", "fit", "metric", "proxy-anchor-digits", "last.ckpt")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_fit_leaves_a_checkpoint_that_says_what_made_it_and_the_sisters_use_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", *RECIPE, *SHORT]) == 0
    content = torch.load(LAST, weights_only=True)
    assert "saccade.metric.task.MetricLearning" in content[EMBEDDED]
    assert list(LAST.parent.rglob("metrics.csv"))
    task = load_task(LAST)
    assert not task.training
    assert torch.equal(task.loss.proxies, content["state_dict"]["loss.proxies"])
    capsys.readouterr()
    for command, stage in (("validate", "val"), ("test", "test")):
        assert main([command, *RECIPE, *SHORT]) == 0
        assert f"{stage}/recall@1" in capsys.readouterr().out
    assert main(["predict", *RECIPE, *SHORT]) == 0
    predicted = read_state(LAST.parent / "predictions.safetensors")
    assert predicted["embeddings"].shape == (len(predicted["labels"]), 64)


def test_mixed_precision_and_tensorboard() -> None:
    logger = ["--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir", "boards"]
    few = ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]
    assert main(["fit", *RECIPE, *SHORT, *few, *logger, "--trainer.precision", "bf16-mixed"]) == 0
    assert list(Path("boards").rglob("events.out.tfevents*"))
    assert all(value.dtype != torch.bfloat16 for value in load_task(LAST).state_dict().values())


def test_starting_afresh_forgets_the_run() -> None:
    few = ["--trainer.limit_train_batches", "2"]
    assert main(["fit", *RECIPE, *SHORT, *few]) == 0
    first = torch.load(LAST, weights_only=True)
    assert main(["fit", *RECIPE, *SHORT, *few]) == 0
    assert torch.load(LAST, weights_only=True)["global_step"] == first["global_step"] == 2
    assert main(["fit", *RECIPE, *SHORT, *few, "--fresh", "true", "--data.batch_size", "16"]) == 0
    assert not torch.equal(
        torch.load(LAST, weights_only=True)["state_dict"]["loss.proxies"], first["state_dict"]["loss.proxies"]
    )


def test_recipes_are_found_by_name_and_by_path() -> None:
    name, path = find_recipe("metric/proxy-anchor-digits")
    assert (name, path) == ("metric/proxy-anchor-digits", recipes()["metric/proxy-anchor-digits"])
    Path("own.yaml").write_text(path.read_text())
    assert find_recipe("own.yaml") == ("own", Path("own.yaml"))


def test_every_recipe_says_what_to_expect_what_it_costs_and_how_to_run_it() -> None:
    for name, path in recipes().items():
        head = [line for line in path.read_text().splitlines() if line.startswith("#")]
        text = " ".join(head).lower()
        assert "expected" in text, name
        assert "cost" in text, name
        assert name in text, name


@pytest.mark.parametrize("content", [{}, {"state_dict": {}, EMBEDDED: "model: {class_path: saccade.metric.nothing}"}])
def test_what_is_no_checkpoint_of_ours_is_refused(content: dict) -> None:
    torch.save(content, "a.ckpt")
    with pytest.raises(ValueError, match=r"not a checkpoint of|cannot be built here"):
        load_task("a.ckpt")
