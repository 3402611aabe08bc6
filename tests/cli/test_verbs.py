"""The verbs as a person types them: what cannot be worked with is one line and exit code 2."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from saccade.cli import main
from saccade.training import cli as training
from tests.data.media import empty, truncated, video


class Exploit:
    def __reduce__(self) -> tuple:
        return os.system, ("touch exploited",)


def error(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained action network, by the recipe's own path."""
    folder = tmp_path_factory.mktemp("trained")
    for label in ("left", "right"):
        for number in range(2):
            video(folder / "data" / "train" / label / f"{number}.mp4", 12, number)
            video(folder / "data" / "val" / label / f"{number}.mp4", 12, number)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"""
model:
  class_path: saccade.action.task.ActionClassification
  init_args:
    backbone:
      class_path: saccade.nn.video_resnet.VideoResNet
      init_args: {{num_classes: 2, block: basic, layers: [1, 1, 1, 1], stem_width: 8, stage_widths: [8, 8, 8, 8]}}
    num_classes: 2
data:
  class_path: saccade.action.datamodule.ActionData
  init_args: {{layout: folder, root: {folder / "data"}, batch_size: 2, num_workers: 0, frames: 4, size: 32}}
trainer: {{max_epochs: 1, accelerator: cpu, logger: false, enable_progress_bar: false}}
"""
    )
    assert main(["fit", "--config", str(recipe), "--folder", str(folder / "run")]) == 0
    return folder / "run" / "last.ckpt"


def test_the_checkpoint_says_which_task_made_it(checkpoint: Path) -> None:
    assert type(training.load_task(checkpoint)).__name__ == "ActionClassification"


def test_a_readable_video_is_classified(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = video(tmp_path / "clip.mp4", 12)
    assert main(["predict", str(clip), "--checkpoint", str(checkpoint)]) == 0
    assert "clip.mp4" in capsys.readouterr().out


def test_a_truncated_video_alone_is_an_error(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = truncated(tmp_path / "cut.mp4")
    assert "cut.mp4 is truncated" in error(["predict", str(clip), "--checkpoint", str(checkpoint)], capsys)


def test_a_video_without_frames_is_an_error(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = empty(tmp_path / "none.mp4")
    assert "none.mp4" in error(["predict", str(clip), "--checkpoint", str(checkpoint)], capsys)


def test_a_clip_longer_than_the_video_is_sampled_with_repeats(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = video(tmp_path / "short.mp4", 2)
    assert main(["predict", str(clip), "--checkpoint", str(checkpoint)]) == 0


def test_over_time_as_json_and_as_a_picture(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, picture = video(tmp_path / "clip.mp4", 60, fps=10), tmp_path / "out.png"
    command = ["predict", str(clip), "--checkpoint", str(checkpoint), "--timeline", str(picture), "--window", "2"]
    assert main([*command, "--json", "--top-k", "1"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["videos"]
    assert [(moment["start"], moment["end"]) for moment in found["clips"]] == [(s, s + 2) for s in range(5)]
    assert all(len(moment["scores"]) == 1 for moment in found["clips"])
    assert found["timeline"] == str(picture)
    with Image.open(picture) as image:
        assert image.width > 1000
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "0.0 to 2.0 s" in shown
    assert "timeline:" in shown


def test_a_corrupt_video_among_several_is_reported_and_the_others_drawn(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [
        video(tmp_path / "a" / "clip.mp4", 12),
        truncated(tmp_path / "cut.mp4"),
        video(tmp_path / "b" / "clip.mp4"),
    ]
    command = ["predict", *map(str, clips), "--checkpoint", str(checkpoint), "--timeline", str(tmp_path / "t.png")]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "cut.mp4 is truncated" in said
    assert "1 of 3 videos were skipped" in said
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["t-clip-2.png", "t-clip.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timeline", "out.jpg"], "the timeline is a PNG, and out.jpg is not named so"),
        (["--timeline", "gone/out.png"], "no folder gone for the timeline"),
        (["--window", "0"], "the window has to be longer than 0 seconds, not 0"),
        (["--step", "-1"], "the step has to be longer than 0 seconds, not -1"),
        (["--top-k", "0"], "top_k has to be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    options: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = video(tmp_path / "clip.mp4", 12)
    assert message in error(["predict", str(clip), "--checkpoint", str(checkpoint), *options], capsys)


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"epoch": 1}])
def test_a_file_that_is_no_checkpoint_of_ours_is_an_error(
    content: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = video(tmp_path / "clip.mp4", 12)
    torch.save(content, tmp_path / "other.ckpt")
    error(["predict", str(clip), "--checkpoint", str(tmp_path / "other.ckpt")], capsys)


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = video(tmp_path / "clip.mp4", 12)
    Path("evil.ckpt").write_bytes(pickle.dumps(Exploit()))
    assert "evil.ckpt" in error(["predict", str(clip), "--checkpoint", "evil.ckpt"], capsys)
    torch.save({"state_dict": Exploit()}, "evil.pth")
    assert "evil.pth" in error(["convert", "proxy-anchor", "evil.pth", "out.safetensors"], capsys)
    assert not Path("exploited").exists()


def test_missing_and_extra_keys_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model.embedding.weight": torch.zeros(2, 2), "model.odd": torch.zeros(1)}, tmp_path / "a.pth")
    line = error(["convert", "proxy-anchor", str(tmp_path / "a.pth"), str(tmp_path / "o.safetensors")], capsys)
    assert "model.odd" in line


EXPLAIN = ["explain", "photo.png", "--model", "resnet18", "--weights", "none", "--size", "64"]


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pixels = torch.randint(0, 255, (60, 80, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save("photo.png")
    Path("text.png").write_text("this is no image")
    Path("file").write_text("")
    return tmp_path / "photo.png"


def test_a_photograph_is_explained(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(EXPLAIN) == 0
    assert "grad-cam at layer" in capsys.readouterr().out
    written = {path.suffix for path in Path("explained").rglob("*") if path.is_file()}
    assert written == {".png", ".json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photo.png": "text.png"}, "text.png"),
        ({"photo.png": "nowhere.png"}, "nowhere.png"),
        ({"resnet18": "resnet18x"}, "resnet18"),
        ({"none": "default"}, "--download"),
        ({"none": "nowhere.pth"}, "nowhere.pth"),
        ({"64": "64 --layer layer5"}, "layer4"),
        ({"64": "64 --method magic"}, "grad-cam"),
        ({"64": "64 --target 1000"}, "999"),
        ({"64": "64 --out file"}, "file"),
        ({"64": "64 --method extremal-perturbation --areas 0,2"}, "area"),
    ],
)
@pytest.mark.usefixtures("photo", "unchecked")
def test_what_cannot_be_explained_is_one_line(
    change: dict, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", "empty")
    monkeypatch.setenv("HF_HOME", "empty")
    command = " ".join(EXPLAIN)
    for old, new in change.items():
        command = command.replace(old, new, 1)
    assert message in error(command.split(), capsys)
