"""The recipes on miniatures in the real layouts, and predictions by the checkpoints they leave."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saccade.action.task import ActionClassification, backbone_state
from saccade.action.verbs import classify_videos, load_classifier
from saccade.checkpoints import read_state
from saccade.cli.main import main
from saccade.data.video import VideoError
from saccade.nn.video_resnet import VideoResNet
from saccade.training.cli import run
from saccade.training.recipes import find_recipe, recipes
from tests.action import layouts
from tests.data.media import empty, truncated

pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore:Something-Something"),
    pytest.mark.filterwarnings("ignore:.*LightningCLI's.*"),
    pytest.mark.filterwarnings("ignore:.*log_every_n_steps.*"),
]

TINY = [
    "--model.init_args.pretrained=null",
    "--model.init_args.backbone.init_args.block=basic",
    "--model.init_args.backbone.init_args.layers=[1,1]",
    "--model.init_args.backbone.init_args.stem_width=8",
    "--model.init_args.backbone.init_args.stage_widths=[8,16]",
    "--model.init_args.backbone.init_args.slot.init_args.channels=16",
    "--model.init_args.backbone.init_args.slot.init_args.window=5",
    '--model.init_args.backbone.init_args.input_spec={"size":32,"frames":4}',
    "--data.init_args.size=32",
    "--data.init_args.frames=4",
    "--data.init_args.batch_size=2",
    "--data.init_args.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


def arguments(recipe: str, root: Path, folder: Path, *extra: str) -> list[str]:
    return ["--config", f"action/{recipe}", f"--folder={folder}", f"--data.init_args.root={root}", *TINY, *extra]


@pytest.mark.parametrize("layout", sorted(layouts.LAYOUTS))
def test_fast_dev_run(tmp_path: Path, layout: str) -> None:
    root = layouts.LAYOUTS[layout](tmp_path / "data")
    extra = ["--trainer.fast_dev_run=true"]
    cli = run("fit", arguments(f"motion-squeeze-{layout}", root, tmp_path / "run", *extra))
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    tested = run("test", arguments(f"motion-squeeze-{layout}", root, tmp_path / "run", *extra))
    assert 0 <= float(tested.trainer.callback_metrics["test/top1"]) <= 1


def test_every_recipe_states_figure_cost_and_command() -> None:
    ours = [path for name, path in recipes().items() if name.startswith("action/motion-squeeze")]
    assert len(ours) == len(layouts.LAYOUTS)
    for path in ours:
        head = re.match(r"(#.*\n)+", path.read_text())[0]
        for word in ("Expected:", "Cost:", "Command:", "Layout:", "Start:"):
            assert word in head, f"{path.name} lacks {word}"
        assert f"action/{path.stem}" in head


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that a recipe left."""
    base = tmp_path_factory.mktemp("trained")
    root = layouts.kinetics(base / "data")
    (root / "val" / "air drumming" / "broken.mp4").write_bytes(b"broken")
    extra = [
        "--trainer.max_epochs=1",
        "--model.init_args.num_classes=400",
        "--trainer.logger=false",
        "--trainer.num_sanity_val_steps=0",
    ]
    with pytest.warns(UserWarning, match=r"1 clip\(s\) could not be read and were skipped, such as .*broken\.mp4"):
        run("fit", arguments("motion-squeeze-kinetics", root, base / "run", *extra))
    return base / "run" / "last.ckpt"


@pytest.fixture(scope="module")
def samples(data_root: Path) -> Path:
    folder = data_root / "video-samples"
    if not folder.is_dir():
        pytest.skip(f"no clips at {folder}")
    return folder


def test_real_clips_are_classified(trained: Path, samples: Path, data_root: Path) -> None:
    labels = data_root / "motion-squeeze" / "kinetics_label_map.txt"
    found = classify_videos([samples], trained, labels=labels, top_k=3)
    assert len(found.videos) == 6
    assert not found.skipped
    names = set(labels.read_text().splitlines())
    for video in found.videos:
        probabilities = [score.probability for score in video.scores]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert {score.label for score in video.scores} <= names
    again = classify_videos([samples / "demo_demo.mp4"], trained, labels=labels, top_k=3)
    assert again.videos[0].scores[0].label == found.videos[0].scores[0].label


def test_weights_with_their_recipe(trained: Path, samples: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        json.dumps(
            {
                "model": {
                    "class_path": "saccade.action.task.ActionClassification",
                    "init_args": {
                        "num_classes": 3,
                        "backbone": {
                            "class_path": "saccade.nn.video_resnet.VideoResNet",
                            "init_args": {
                                "num_classes": 3,
                                "block": "basic",
                                "layers": [1],
                                "stage_widths": [8],
                                "stem_width": 8,
                                "input_spec": {"size": 32, "frames": 4},
                            },
                        },
                    },
                }
            }
        )
    )
    model = VideoResNet(3, "basic", (1,), stem_width=8, stage_widths=(8,))
    save_file(model.state_dict(), tmp_path / "ours.safetensors")
    found = classify_videos([samples / "demo_demo.mp4"], tmp_path / "ours.safetensors", config=str(recipe))
    assert len(found.videos[0].scores) == 3
    with pytest.raises(ValueError, match="does not fit VideoResNet"):
        load_classifier(trained, str(recipe))
    with pytest.raises(ValueError, match="--config RECIPE"):
        load_classifier(tmp_path / "ours.safetensors")


def test_what_cannot_be_read_is_skipped_among_many_and_an_error_alone(
    trained: Path, samples: Path, tmp_path: Path
) -> None:
    bad = [truncated(tmp_path / "short.mp4"), empty(tmp_path / "void.mp4")]
    found = classify_videos([*bad, samples / "demo_demo.mp4"], trained)
    assert len(found.videos) == 1
    assert list(found.skipped) == [str(path) for path in bad]
    for path in bad:
        with pytest.raises(VideoError, match=re.escape(path.name)):
            classify_videos([path], trained)
    with pytest.raises(VideoError, match="none of the 2 videos"):
        classify_videos(bad, trained)


def test_bad_requests(trained: Path, samples: Path, tmp_path: Path) -> None:
    clip = samples / "demo_demo.mp4"
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    with pytest.raises(FileNotFoundError, match="no video at"):
        classify_videos([tmp_path / "gone.mp4"], trained)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        classify_videos([clip], tmp_path / "gone.ckpt")
    with pytest.raises(ValueError, match="has 2 labels, and the checkpoint has 400 classes"):
        classify_videos([clip], trained, labels=tmp_path / "labels.txt")
    with pytest.raises(ValueError, match="top_k"):
        classify_videos([clip], trained, top_k=0)
    with pytest.raises(FileNotFoundError, match="no recipe 'action/none'"):
        classify_videos([clip], trained, config="action/none")


def test_fine_tuning_starts_from_the_checkpoint_without_its_classifier(trained: Path, tmp_path: Path) -> None:
    root = layouts.ucf101(tmp_path / "data")
    extra = [
        "--trainer.fast_dev_run=true",
        f"--model.init_args.pretrained={trained}",
        "--model.init_args.optimizer.init_args.lr=0",
    ]
    cli = run("fit", arguments("motion-squeeze-ucf101", root, tmp_path / "run", *extra))
    before, after = backbone_state(read_state(trained)), cli.model.backbone.state_dict()
    for key, value in after.items():
        if "running" not in key and "tracked" not in key and not key.startswith("fc."):
            assert torch.equal(value, before[key]), key
    assert after["fc.weight"].shape[0] == 101


def test_the_command_prints_json_and_writes_it(
    trained: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = samples / "demo_demo.mp4", tmp_path / "out.json"
    words = ["predict", str(clip), f"--checkpoint={trained}", "--top-k=2"]
    assert main([*words, "--json", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(out.read_text())
    assert len(json.loads(printed)["videos"][0]["scores"]) == 2
    assert main([*words, str(empty(tmp_path / "void.mp4"))]) == 0
    shown = capsys.readouterr()
    assert "demo_demo.mp4" in shown.out
    assert "1 of 2 videos were skipped" in shown.err


@pytest.mark.parametrize("kind", ["truncated", "void", "gone", "unwritable"])
def test_the_command_says_in_one_line_what_is_wrong(
    trained: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path, extra = tmp_path / f"{kind}.mp4", []
    if kind == "truncated":
        truncated(path)
    elif kind == "void":
        empty(path)
    elif kind == "unwritable":
        path, extra = samples / "demo_demo.mp4", [f"--out={tmp_path / 'no' / 'folder' / 'unwritable.json'}"]
    assert main(["predict", str(path), f"--checkpoint={trained}", *extra]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert kind in error


def task() -> ActionClassification:
    return ActionClassification(VideoResNet(3, "basic", (1,), stem_width=8, stage_widths=(8,), dropout=0.0), 3)


def test_views_are_fused_by_their_mean_probability() -> None:
    module, video = task().eval(), torch.randn(2, 3, 3, 4, 32, 32)
    one_by_one = torch.stack([module.backbone(video[:, v]).softmax(1) for v in range(3)]).mean(0)
    torch.testing.assert_close(module(video), one_by_one)
    said = module.predict_step({"video": video, "label": torch.zeros(2).long(), "index": torch.tensor([5, 7])})
    torch.testing.assert_close(said.probabilities, one_by_one)
    assert said.index.tolist() == [5, 7]


def test_labels_outside_the_classes_are_named() -> None:
    batch = {"video": torch.randn(2, 3, 4, 32, 32), "label": torch.tensor([0, 3])}
    with pytest.raises(ValueError, match="labels go from 0 to 3: 0 to 2 is accepted"):
        task().training_step(batch, 0)


def test_classifier_learning_rates() -> None:
    module = ActionClassification(VideoResNet(3, "basic", (1,), stage_widths=(8,)), 3, classifier_lr=(5.0, 10.0))
    groups = module.configure_optimizers().param_groups
    assert [round(group["lr"] / groups[0]["lr"]) for group in groups] == [1, 5, 10]
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))


@pytest.mark.parametrize(("arguments", "message"), [((1,), "num_classes"), ((3, None, 1.0), "label_smoothing")])
def test_task_bad_input(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActionClassification(torch.nn.Identity(), *arguments)


def test_recipes_build_the_papers_network() -> None:
    from jsonargparse import ArgumentParser

    from saccade.training.task import Task

    name, path = find_recipe("action/motion-squeeze-ssv1")
    assert name == "action/motion-squeeze-ssv1"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "model", instantiate=True)
    import yaml

    built = parser.instantiate_classes(parser.parse_object({"model": yaml.safe_load(path.read_text())["model"]})).model
    from saccade.action import msnet

    expected = {key: value.shape for key, value in msnet("resnet50").state_dict().items()}
    assert {key: value.shape for key, value in built.backbone.state_dict().items()} == expected
