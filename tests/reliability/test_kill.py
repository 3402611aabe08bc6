"""A kill at any moment, then the same command: the same final figures and weights."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
RECIPE = ["fit", "--config", "metric/proxy-anchor-digits", "--checkpoint_every", "4", "--trainer.max_epochs", "3"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]


def start(folder: Path, command: list[str]) -> subprocess.Popen:
    """In a process group of its own, as from a shell."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    log = (folder / "log").open("a")
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def kill_when(process: subprocess.Popen, reached: Callable[[], bool]) -> None:
    """`kill -9` of the main process alone, at the moment named; its children have to end by themselves."""
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "it ended before the moment to kill it"
        assert time.monotonic() < deadline, "the moment to kill it never came"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def finish(folder: Path, command: list[str]) -> None:
    assert start(folder, command).wait(timeout=240) == 0, (folder / "log").read_text()[-2000:]


def test_reproduce_survives_kills(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from saccade.claims.engine import reproduce\n"
        "if __name__ == '__main__':\n"
        "    reproduce('saccade.metric.claims:PROXY_ANCHOR', seeds=2, jobs=2, overrides={'steps': 12},"
        " out=Path('runs'))\n"
    )
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.py").write_text(script)
    finish(tmp_path / "whole", ["run.py"])

    cells = tmp_path / "killed" / "runs" / "reproduce" / "proxy-anchor" / "digits-small" / "cells"
    for count in (1, 4, 8):
        process = start(tmp_path / "killed", ["run.py"])
        kill_when(process, lambda count=count: len(list(cells.glob("*.json"))) >= count)
    finish(tmp_path / "killed", ["run.py"])

    def figures(folder: str) -> dict:
        path = tmp_path / folder / "runs" / "reproduce" / "proxy-anchor" / "digits-small" / "result.json"
        result = json.loads(path.read_text())
        return {(cell["arm"], cell["seed"]): (cell["metrics"], cell["curves"]) for cell in result["cells"]}

    assert len(figures("whole")) == 10
    assert figures("killed") == figures("whole")


def test_fit_survives_kills(tmp_path: Path) -> None:
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    command = ["-m", "saccade", *RECIPE, *QUIET]
    finish(tmp_path / "whole", command)

    last = Path("runs", "fit", "metric", "proxy-anchor-digits", "last.ckpt")

    def steps(folder: str) -> int:
        path = tmp_path / folder / last
        return torch.load(path, weights_only=True)["global_step"] if path.exists() else 0

    for reached in (4, 14, 32):
        process = start(tmp_path / "killed", command)
        kill_when(process, lambda reached=reached: steps("killed") >= reached)
    finish(tmp_path / "killed", command)

    whole, killed = (torch.load(tmp_path / f / last, weights_only=True)["state_dict"] for f in ("whole", "killed"))
    assert steps("whole") == steps("killed") == 42
    for key, value in whole.items():
        assert torch.equal(killed[key], value), key


def test_another_configuration_does_not_go_on_from_a_runs_checkpoint(tmp_path: Path) -> None:
    short = [*RECIPE, *QUIET, "--trainer.max_epochs", "1"]
    finish(tmp_path, ["-m", "saccade", *short])
    process = start(tmp_path, ["-m", "saccade", *short, "--data.batch_size", "32"])
    assert process.wait(timeout=120) == 2
    line = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "another configuration (differs in data.init_args.batch_size)" in line


@pytest.mark.parametrize("processes", [2])
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, processes: int) -> None:
    """One step of plain gradient descent with a rate of 1, in float64: the change of the weights is the gradient."""
    recipe = {
        "model": {
            "class_path": "saccade.metric.task.MetricLearning",
            "init_args": {
                "model": {
                    "class_path": "saccade.metric.ProxyAnchorModel",
                    "init_args": {"backbone": {"class_path": "saccade.nn.convnet.ConvNet"}, "embedding_size": 16},
                },
                "loss": {
                    "class_path": "saccade.metric.ProxyAnchorLoss",
                    "init_args": {"num_classes": 20, "embedding_size": 16},
                },
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}},
            },
        },
        "data": {"class_path": "saccade.metric.datasets.SmallImages"},
        "trainer": {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 2, "precision": "64-true"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    weights = {}
    for count in (1, processes):
        batch = ["--data.batch_size", str(32 // count), "--folder", f"run{count}"]
        spread = ["--trainer.devices", str(count), *(["--trainer.strategy", "ddp"] if count > 1 else [])]
        finish(tmp_path, ["-m", "saccade", "fit", "--config", "recipe.yaml", *QUIET, *batch, *spread])
        weights[count] = torch.load(tmp_path / f"run{count}" / "last.ckpt", weights_only=True)["state_dict"]
    assert weights[1].keys() == weights[processes].keys()
    moved = 0
    for key, value in weights[1].items():
        torch.testing.assert_close(
            weights[processes][key], value, atol=1e-9, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
        )
        moved += value.is_floating_point()
    assert moved > 10
