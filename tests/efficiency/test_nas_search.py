"""`saccade nas-search`, and the claim."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.claims import engine
from saccade.cli import main
from saccade.efficiency.claims.weaknas import WEAKNAS
from saccade.efficiency.nas_search import CommandOracle, nas_search

SPACE = """
choices:
  width: [16, 32, 64, 128]
  depth: [1, 2, 3, 4, 5]
  block: [plain, residual]
command: {python} {script} {{width}} {{depth}} {{block}}
"""
SCRIPT = """
import sys
width, depth, block = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with open("LOG", "a") as log:
    print(width, depth, block, file=log)
print("training...")
print(width / 128 - abs(depth - 3) + 0.5 * (block == "residual"))
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("LOG", str(tmp_path / "log")))
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.format(python=sys.executable, script=script))
    return path


def table(path: Path) -> Path:
    digits = np.random.default_rng(0).normal(size=(5, 3))
    content = {}
    for number in range(3**5):
        key = np.base_repr(number, 3).zfill(5)
        mean = 90 + sum(digits[i, int(d)] for i, d in enumerate(key))
        content[key] = {"test_acc": [mean - 0.1, mean, mean + 0.1], "params": 1, "flops": 1}
    path.write_text(json.dumps(content))
    return path


def test_a_table_is_searched_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [
        "nas-search",
        str(table(tmp_path / "table.json")),
        "--predictor",
        "ridge",
        "--budget",
        "40",
        "--init",
        "10",
    ]
    assert main([*words, "--pool", "30", "--repeat", "3", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["seeds"] == 3
    assert summary["architectures"] == 243
    assert summary["evaluations"] == 40
    assert summary["regret"] == pytest.approx(summary["optimum"] - summary["mean"])
    assert summary["regret"] < 0.5
    assert Image.open(out / "history-weaknas.png").width > 600
    result = json.loads((out / "result-weaknas-1.json").read_text())
    assert len(result["history"]) == 40
    assert result["best"] == result["best_key"]


def test_a_recipe_gives_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nas-search", str(table(tmp_path / "table.json")), "--recipe", "efficiency/weaknas-macro"]
    assert main([*words, "--budget", "30", "--noise", "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] == 30


def test_a_space_of_ones_own_is_searched_by_a_command(space: Path, tmp_path: Path) -> None:
    found = nas_search(space, tmp_path / "out", budget=25, init=10, per_round=5, pool=10, predictor="ridge", workers=2)
    assert found.summary["best_choice"] == {"width": 128, "depth": 3, "block": "residual"}
    assert len((tmp_path / "log").read_text().splitlines()) == 25
    again = nas_search(space, tmp_path / "out", budget=25, init=10, per_round=5, pool=10, predictor="ridge")
    assert again.results[0].evaluated == found.results[0].evaluated
    assert len((tmp_path / "log").read_text().splitlines()) == 25  # everything was in the state


def test_a_killed_search_goes_on(space: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "saccade", "nas-search", str(space), "--budget", "30", "--predictor", "ridge"]
    words += ["--init", "10", "--pool", "20", "--out", str(out), "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = out / "state-weaknas-0.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (state.exists() and len(json.loads(state.read_text())["values"]) >= 5):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = json.loads(state.read_text())["values"]
    assert 5 <= len(before) < 30
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 0
    after = json.loads(state.read_text())["values"]
    whole = nas_search(space, tmp_path / "whole", budget=30, init=10, pool=20, predictor="ridge")
    assert list(whole.results[0].evaluated.items()) == list(
        json.loads((out / "result-weaknas-0.json").read_text())["evaluated"].items()
    )
    assert before.items() <= after.items()
    assert len(after) == 30


def test_commands_that_fail_are_named(tmp_path: Path) -> None:
    for command, message in (
        (f"{sys.executable} -c 'raise SystemExit(3)'", "ended with 3"),
        ("echo nothing", "printed no number"),
        ("no-such-program", "did not run"),
        (f"{sys.executable} -c 'import time; time.sleep(9)'", "did not run.*timed out"),
    ):
        with pytest.raises(RuntimeError, match=message):
            CommandOracle(command, timeout=0.5 if "sleep" in command else None)({"a": 1})
    assert CommandOracle(f"{sys.executable} -c 'print(len(\"{{a}}\"))'")({"a": "four"}) == 4.0
    all_of_it = f"{sys.executable} -c 'import json, sys; print(json.loads(sys.argv[1])[\"a\"])' {{json}}"
    assert CommandOracle(all_of_it)({"a": 7}) == 7.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("choices: [", "no YAML"),
        ("a: 1", "`choices` and `command`"),
        ("choices: {a: 1}\ncommand: x", "list what it can be"),
        ("choices: {a: [1]}\ncommand: x\nother: 1", "may hold"),
    ],
)
def test_bad_spaces(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    assert main(["nas-search", str(tmp_path / "space.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "magic"], "one of weaknas, strong"),
        (["--method", "random", "--pool", "9"], "random has no setting pool"),
        (["--metric", "valid"], "are test, params, flops, not 'valid'"),
        (["--acquisition", "x"], "an acquisition is one of none"),
        (["--repeat", "0"], "at least 1"),
        (["--recipe", "efficiency/none"], "no recipe"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["nas-search", str(table(tmp_path / "table.json")), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_the_claim_runs(tmp_path: Path) -> None:
    result = engine.reproduce("saccade.efficiency.claims.weaknas:WEAKNAS", budget="smoke", jobs=0, out=tmp_path)
    assert {cell.arm for cell in result.cells} == set(WEAKNAS.arms)
    for cell in result.cells:
        assert cell.metrics["regret"] >= 0
        assert len(cell.curves["regret"]) == 30
    assert [len(cell.pictures) for cell in result.cells if cell.arm == "weak"] == [1]
