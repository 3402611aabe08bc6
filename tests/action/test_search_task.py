"""The search as a Lightning task: recipes on miniatures, halves of the data, resume, two processes."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from saccade.action.autox3d import AutoX3D
from saccade.action.search_data import HELD_OUT, SearchData
from saccade.action.search_task import X3DSearch
from saccade.nn.x3d_architecture import X3DArchitecture
from saccade.training.cli import load_task, run
from saccade.training.recipes import find_recipe, recipes
from tests.action import layouts
from tests.data.media import video

pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore:Something-Something"),
    pytest.mark.filterwarnings("ignore:.*LightningCLI's.*"),
    pytest.mark.filterwarnings("ignore:.*log_every_n_steps.*"),
]

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
DATA = [
    "--data.init_args.size=32",
    "--data.init_args.frames=4",
    "--data.init_args.shortest=[36,40]",
    "--data.init_args.batch_size=2",
    "--data.init_args.num_workers=0",
]
SPACE = [
    f"--model.init_args.space.{key}={value}"
    for key, value in {
        "frames": 4,
        "crop": 32,
        "groups": "[2,2,4,4]",
        "depths": "[1,2,1,1]",
        "stem": 4,
        "head": 8,
        "features": 8,
    }.items()
]
SEARCHES = sorted(name for name in recipes() if name.startswith("action/autox3d-search"))
TRAININGS = sorted(name for name in recipes() if name.startswith("action/autox3d") and "search" not in name)


def miniature(recipe: str, root: Path) -> Path:
    """The data set of a recipe, with clips enough for two halves of a batch."""
    layout = recipe.rpartition("-")[2]
    layouts.LAYOUTS[layout](root)
    if layout == "kinetics":
        for i in range(2):
            video(root / "train" / "abseiling" / f"{'c' * 10}{i}_000010_000020.mp4", 20, i)
    return root


def search(recipe: str, root: Path, folder: Path, *extra: str) -> list[str]:
    common = ["--config", recipe, f"--folder={folder}", f"--data.init_args.root={root}"]
    return [*common, *DATA, *SPACE, *QUIET, "--model.init_args.max_samples=3", *extra]


@pytest.mark.parametrize("recipe", SEARCHES)
def test_a_search_runs_and_what_it_finds_trains(tmp_path: Path, recipe: str) -> None:
    root, folder = miniature(recipe, tmp_path / "data"), tmp_path / "run"
    short = ["--trainer.max_epochs=2", "--model.init_args.warmup_epochs=1", "--trainer.logger=false"]
    if recipe.endswith("ssv2"):
        short.append("--data.init_args.batch_size=1")
    cli = run("fit", search(recipe, root, folder, *short))
    metrics = cli.trainer.callback_metrics
    assert torch.isfinite(metrics["train/loss"])
    assert 0 <= float(metrics["val/top1"]) <= 1
    assert cli.model.distribution.logits.abs().sum() > 0
    found = X3DArchitecture.load(folder / "architecture.json")
    assert found.cost(cli.model.space.num_classes).multiply_adds <= cli.model.target
    assert (found.frames, found.crop) == (4, 32)

    training = recipe.replace("search-", "")
    classes = cli.model.space.num_classes
    model = f"--model.init_args.backbone.init_args.architecture={folder / 'architecture.json'}"
    words = [
        "--config",
        training,
        f"--folder={tmp_path / 'train'}",
        f"--data.init_args.root={root}",
        *DATA,
        *QUIET,
        model,
    ]
    trained = run("fit", [*words, "--trainer.max_epochs=1", "--trainer.logger=false"])
    assert torch.isfinite(trained.trainer.callback_metrics["train/loss"])
    again = load_task(tmp_path / "train" / "last.ckpt")
    assert isinstance(again.backbone, AutoX3D)
    assert again.backbone.architecture == found
    assert again.backbone.fc.out_features == classes


def test_every_training_recipe_names_the_search_before_it() -> None:
    assert len(SEARCHES) == len(TRAININGS) == 4
    for name in TRAININGS:
        backbone = yaml.safe_load(find_recipe(name)[1].read_text())["model"]["init_args"]["backbone"]["init_args"]
        searched = name.replace("autox3d-", "autox3d-search-")
        assert searched in SEARCHES
        assert backbone["architecture"] == f"runs/fit/{searched}/architecture.json"


@pytest.mark.parametrize("name", SEARCHES + TRAININGS)
def test_every_recipe_states_figure_cost_and_command(name: str) -> None:
    text = find_recipe(name)[1].read_text()
    head = re.match(r"(#.*\n)+", text)[0]
    for word in ("Expected:", "Cost:", "Command:", "Layout:", "Start:"):
        assert word in head, f"{name} lacks {word}"
    assert f"saccade fit --config {name}" in head


def test_a_recipe_without_its_search_says_what_is_missing(tmp_path: Path) -> None:
    root = miniature("kinetics", tmp_path / "data")
    words = ["--config", "action/autox3d-s-kinetics", f"--folder={tmp_path / 'run'}", f"--data.init_args.root={root}"]
    missing = f"--model.init_args.backbone.init_args.architecture={tmp_path / 'none.json'}"
    with pytest.raises((ValueError, FileNotFoundError), match=r"none\.json"):
        run("fit", [*words, *DATA, *QUIET, missing])


def test_halves_share_no_clip_and_hold_them_all(tmp_path: Path) -> None:
    data = SearchData("kinetics", str(miniature("kinetics", tmp_path)), frames=4, size=32, batch_size=2, seed=3)
    whole = super(SearchData, data).train_set()
    halves = data.train_set()
    first, second = ({str(record.path) for record in half.records} for half in (halves.first, halves.second))
    assert not first & second
    assert first | second == {str(record.path) for record in whole.records}
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == batch[HELD_OUT]["video"].shape == (2, 1, 3, 4, 32, 32)
    assert not torch.equal(batch["video"], batch[HELD_OUT]["video"])
    assert "held_out" not in next(iter(data.val_dataloader()))


def test_a_killed_search_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = "action/autox3d-search-s-kinetics"
    root = miniature(recipe, tmp_path / "data")
    options = ["--model.init_args.warmup_epochs=1", "--trainer.logger=false", "--data.init_args.batch_size=1"]
    options += ["--checkpoint_every=1", "--trainer.num_sanity_val_steps=0", "--trainer.max_epochs=3"]
    run("fit", search(recipe, root, tmp_path / "whole", *options))
    for moment in ((0, 1), (1, 1), (2, 0)):
        with monkeypatch.context() as patched:

            def kill(task: X3DSearch, batch: object, batch_idx: int, moment: tuple[int, int] = moment) -> None:
                if (task.current_epoch, batch_idx) == moment:
                    raise KeyboardInterrupt

            patched.setattr(X3DSearch, "on_train_batch_start", kill)
            with pytest.raises(SystemExit):
                run("fit", search(recipe, root, tmp_path / "cut", *options))
    run("fit", search(recipe, root, tmp_path / "cut", *options))
    one, two = (torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "cut"))
    assert float(one["distribution.logits"].abs().sum()) > 0
    for key, value in one.items():
        if "top1" not in key:
            assert torch.equal(two[key], value), key


def test_two_processes_stay_alike(tmp_path: Path) -> None:
    """Both draw the same architectures, weigh them by the mean likelihood and average gradients."""
    import os
    import subprocess
    import sys

    root = miniature("kinetics", tmp_path / "data")
    script = (
        "import sys, torch\n"
        "from saccade.training.cli import run\n"
        "cli = run('fit', sys.argv[1:])\n"
        "state = {k: v for k, v in cli.model.state_dict().items() if 'top1' not in k}\n"
        "torch.save(state, f'rank{cli.trainer.global_rank}.pt')\n"
    )
    (tmp_path / "go.py").write_text(script)
    words = search("action/autox3d-search-s-kinetics", root, tmp_path / "run", "--trainer.max_epochs=2")
    words += ["--model.init_args.warmup_epochs=1", "--trainer.logger=false", "--data.init_args.batch_size=1"]
    words += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.num_sanity_val_steps=0"]
    source = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{source / 'src'}{os.pathsep}{source}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "go.py", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert float(one["distribution.logits"].abs().sum()) > 0
    for key, value in one.items():
        assert torch.equal(two[key], value), key
