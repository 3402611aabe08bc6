"""The command line as a person types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saccade import __version__
from saccade.catalog import METHODS
from saccade.cli import main

ROOT = Path(__file__).parents[2]


def test_list_names_every_method_and_marks_what_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for method in METHODS:
        line = next(line for line in lines if line.split()[:1] == [method.slug])
        assert ("planned" in line.split()[1]) == (method.status == "planned")


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json", "--domain", "metric"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["domain"] for row in rows} == {"metric"}


def test_show_prints_the_faces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "proxy-anchor"]) == 0
    page = capsys.readouterr().out
    assert "from saccade.metric.proxy_anchor import ProxyAnchorLoss" in page
    assert "saccade reproduce proxy-anchor" in page
    assert "tjddus9597/Proxy-Anchor-CVPR2020 (MIT)" in page


def test_show_never_pretends(capsys: pytest.CaptureFixture[str]) -> None:
    planned = next(method for method in METHODS if method.status == "planned")
    assert main(["show", planned.slug]) == 0
    page = capsys.readouterr().out
    assert "planned: nothing of it can be imported or run yet" in page
    assert "saccade reproduce" not in page


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert main(["--help"]) == 0
    assert "reproduce" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["list"], ["show", "proxy-anchor"], ["--help"]])
def test_the_quick_commands_import_no_torch(command: list[str]) -> None:
    script = "import sys; from saccade.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    environment = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", script, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["show", "proxy-ancor"], "no method 'proxy-ancor'; near it: proxy-anchor"),
        (["reproduce", "proxy-ancor"], "near it: proxy-anchor"),
        (["list", "--domain", "magic"], "no domain 'magic'; there is"),
        (["reproduce"], "name one method, or give --all"),
        (["reproduce", "proxy-anchor", "--on", "mars"], "no data 'mars'; there is digits, omniglot"),
        (["reproduce", "proxy-anchor", "--on", "omniglot", "--data-root", "nowhere"], "needs the folder 'omniglot'"),
        (["reproduce", "proxy-anchor", "--budget", "huge"], "smoke, small or full"),
        (["fit", "--config", "metric/proxy-anker-cub"], "near it: metric/proxy-anchor-cub"),
        (["fit"], "which recipe? give --config"),
        (["fit", "--config", "metric/proxy-anchor-digits", "--trainer.no_such_option", "1"], "no_such_option"),
        (["fit", "--config", "metric/proxy-anchor-digits", "--model.loss_lr_mult", "many"], "loss_lr_mult"),
        (["convert", "proxy-anchor", "none.pth", "out.safetensors"], "no checkpoint at none.pth"),
        (["convert", "proxy-anchor", "none.pth", "out.bin"], "should end in .safetensors"),
        (["bench", "no-such"], "no benchmark of 'no-such'"),
        (["no-such-command"], "No such command"),
        (["show"], "Missing argument"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_line_and_exit_code_2(
    command: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.init_args.loss.init_args.num_classes", "3"], "is outside the classes 0 to 2 (3 classes)"),
        (["--model.init_args.optimizer.init_args.lr", "1e30"], "the loss is nan at step"),
        (["--model.init_args.init_from", "none.safetensors"], "no checkpoint at none.safetensors"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_training_that_cannot_go_well_says_why(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.num_sanity_val_steps", "0"]
    assert main(["fit", "--config", "metric/proxy-anchor-digits", *quiet, *options]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_unwritable_output_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    command = ["reproduce", "proxy-anchor", "--budget", "smoke", "--jobs", "0", "--out", str(tmp_path / "file")]
    assert main(command) == 2
    assert "cannot write into the output folder" in capsys.readouterr().err


def test_a_smoke_run_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "proxy-anchor", "--budget", "smoke", "--jobs", "0", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "not judged"
    assert len(list(tmp_path.rglob("report.html"))) == 1


def test_convert_writes_what_the_part_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from saccade.checkpoints import load_strict, read_state
    from saccade.metric import ProxyAnchorModel

    model = ProxyAnchorModel("resnet18", 8)
    theirs = {f"model.{key.removeprefix('backbone.')}": value for key, value in model.state_dict().items()}
    theirs = {key.replace("model.head.linear", "model.embedding"): value for key, value in theirs.items()}
    torch.save({"model_state_dict": theirs}, tmp_path / "theirs.pth")
    assert main(["convert", "proxy-anchor", str(tmp_path / "theirs.pth"), str(tmp_path / "ours.safetensors")]) == 0
    assert "MIT" in capsys.readouterr().out
    load_strict(ProxyAnchorModel("resnet18", 8), read_state(tmp_path / "ours.safetensors"))
