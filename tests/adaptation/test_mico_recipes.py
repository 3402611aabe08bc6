"""MiCo's recipes on miniatures, and DeCoTa in the domain's task: the phases, a kill, and the person's own images."""

from pathlib import Path

import pytest

from saccade.adaptation.datasets import LAYOUTS
from saccade.cli import main
from saccade.training.recipes import recipes
from tests.adaptation.test_datasets import write

MICO = [name for name in recipes() if name.startswith("adaptation/mico-")]


@pytest.mark.parametrize("name", MICO)
def test_every_recipe_runs_on_a_miniature(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "domainnet-126" if "domainnet" in name else "office-home-few")
    for file in tmp_path.glob("txt/*/*_1.txt"):
        file.with_name(file.name.replace("_1.txt", "_3.txt")).write_bytes(file.read_bytes())
    arguments = ["--data.size", "64", "--data.num_workers", "0", "--data.source_batch", "3", "--data.target_batch", "4"]
    classifier = "--model.init_args.method.init_args.classifier.init_args"
    arguments += [
        f"{classifier}.pretrained",
        "false",
        f"{classifier}.num_classes",
        "2",
        f"{classifier}.name",
        "resnet10t",
    ]
    arguments += ["--model.init_args.method.init_args.pretrain", "1", "--trainer.accelerator", "cpu"]
    command = ["fit", "--config", name, "--data.root", str(tmp_path), "--trainer.fast_dev_run", "2", *arguments]
    assert main(command) == 0, capsys.readouterr().err


def test_the_recipes_are_there_and_name_domains_that_exist() -> None:
    assert len(MICO) == 4
    for name in MICO:
        text = recipes()[name].read_text()
        layout = "domainnet-126" if "domainnet" in name else "office-home-few"
        domains = [line.split("[")[1].rstrip("]\n") for line in text.splitlines() if line.startswith("    sources:")]
        assert layout in text
        assert domains[0] in LAYOUTS[layout].domains
