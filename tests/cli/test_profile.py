"""`saccade profile` as a person types it."""

import json

import pytest

from saccade.cli import main

TINY = ["saccade.nn.r2plus1d.R2Plus1D", "num_classes=3", "layers=[1, 1]", "stem_width=8", "stage_widths=[8, 16]"]
CLIP = ["--input", "1,3,4,32,32", "--runs", "2"]
BLOCK = "layer1=saccade.action.MotionSqueeze channels=8 reduced_channels=4 window=5"


def test_a_dotted_path_with_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *TINY, *CLIP, "--json"]) == 0
    bare = json.loads(capsys.readouterr().out)
    assert main(["profile", *TINY, *CLIP, "--json", "--insert", BLOCK]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert (bare["model"], bare["input"], bare["training"]) == ("R2Plus1D", [[1, 3, 4, 32, 32]], False)
    assert whole["parameters"] > bare["parameters"]
    assert whole["macs"] > bare["macs"]
    assert [row["name"] for row in whole["modules"]] == ["stem", "layer1", "layer2", "dropout", "fc"]
    assert bare["latency"]["runs"] == 2


def test_a_folded_network_is_told_the_frames(capsys: pytest.CaptureFixture[str]) -> None:
    network = ["saccade.nn.video_resnet.VideoResNet", "num_classes=3", "block=basic", "layers=[1]", "stage_widths=[8]"]
    assert main(["profile", *network, *CLIP, "--insert", BLOCK, "--depth", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modules"] == []


def test_a_model_of_timm_in_training_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["test_vit", "num_classes=4", "--input", "2x3x160x160", "--train", "--runs", "1"]
    assert main(["profile", *words]) == 0
    page = capsys.readouterr().out
    for text in ("parameters", "forward and backward", "peak memory", "a step", "patch_embed"):
        assert text in page


def test_a_recipe_s_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "action/motion-squeeze-ssv1", "--input", "1,3,2,64,64", "--runs", "1", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["model"] == "VideoResNet"
    assert "slot" in [row["name"] for row in page["modules"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet1x8"], "no model 'resnet1x8'"),
        (["saccade.nn.x3d.X4D"], "there is no 'saccade.nn.x3d.X4D'"),
        (["saccade.nn.x3d.MEAN"], "is a tuple, wanted a class or a function"),
        (["saccade.nn.x3d.round_width", "width=9"], "gives a int"),
        (["saccade.nn.x3d.x3d_s", "frames"], "key=value"),
        (["saccade.nn.x3d.x3d_s", "crop=8"], "at least 32"),
        (["saccade.nn.x3d.x3d_s", "crops=64"], "crops"),
        (["torch.nn.Linear", "in_features=2", "out_features=2"], "give --input"),
        (["torch.nn.Linear", "in_features=2", "out_features=2", "--input", "1,3"], "cannot take an input"),
        (["resnet18", "--input", "1,three"], "--input is a shape"),
        (["resnet18", "--threads", "0"], "--threads"),
        (["resnet18", "--insert", "layer1"], "LAYER=CLASS_PATH"),
        (["resnet18", "--insert", "layer9=torch.nn.ReLU", "--input", "1,3,32,32"], "no layer 'layer9'"),
        (["action/motion-squeeze-ssv1", "layers=[1]"], "takes no arguments"),
        (["graph/correct-and-smooth-nothing"], "no model"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
