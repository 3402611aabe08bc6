"""Testing with several clips and crops of a video: the scores are the mean over its views, and nothing else."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from saccade.action.datamodule import ActionData
from saccade.action.task import ActionClassification
from saccade.data.sampling import clip_views
from saccade.data.transforms import uniform_crop_corner
from saccade.nn.video_resnet import VideoResNet
from tests.action import layouts
from tests.data.media import video

pytestmark = pytest.mark.usefixtures("unchecked")
SMALL = {"frames": 4, "stride": 2, "size": 32, "batch_size": 2}


@pytest.fixture
def task() -> ActionClassification:
    torch.manual_seed(0)
    network = VideoResNet(3, "basic", (1, 1), stem_width=8, stage_widths=(8, 16))
    torch.nn.init.normal_(network.fc.weight)
    return ActionClassification(network, 3).eval()


def test_one_view_is_the_plain_evaluation(task: ActionClassification) -> None:
    video = torch.randn(3, 1, 3, 4, 32, 32)
    with torch.no_grad():
        plain = task.backbone(video[:, 0]).softmax(1)
        assert torch.equal(task(video), plain)
        assert torch.equal(task(video[:, 0]), plain)
        assert torch.allclose(task(video.expand(-1, 30, -1, -1, -1, -1)), plain, atol=1e-6)


def test_scores_are_the_mean_over_views_in_any_order(task: ActionClassification) -> None:
    video = torch.randn(2, 30, 3, 4, 32, 32)
    with torch.no_grad():
        scores = task(video)
        single = torch.stack([task(video[:, v]) for v in range(30)])
        assert torch.allclose(scores, single.mean(0), atol=1e-6)
        assert torch.allclose(scores, task(video[:, torch.randperm(30)]), atol=1e-6)
        assert torch.allclose(scores, task(video.flip(0)).flip(0), atol=1e-6)
    assert torch.allclose(scores.sum(1), torch.ones(2))


@pytest.mark.parametrize("sampling", ["clip", "dense"])
def test_ten_clips_of_three_crops_are_thirty_different_views(tmp_path: Path, sampling: str) -> None:
    video(tmp_path / "a.mp4", 120)
    (tmp_path / "test.csv").write_text("a.mp4 0\n")
    data = ActionData("csv", str(tmp_path), sampling, test_clips=10, test_crops=3, **SMALL)
    views = data.test_set()[0]["video"]
    assert views.shape == (30, 3, 4, 32, 32)
    assert len({view.numpy().tobytes() for view in views}) == 30
    centre = ActionData("csv", str(tmp_path), sampling, test_clips=10, test_crops=1, **SMALL).test_set()[0]["video"]
    assert torch.equal(views[1::3], centre)  # clips one after another, each with its left, centre and right


def test_a_video_no_longer_than_a_clip_and_square_has_one_view_thirty_times(
    tmp_path: Path, task: ActionClassification
) -> None:
    torch.save(torch.randint(0, 255, (7, 3, 37, 37), dtype=torch.uint8), tmp_path / "a.pt")
    (tmp_path / "test.csv").write_text("a.pt 0\n")
    assert len(clip_views(7, 4, 2, 10).unique(dim=0)) == 1
    assert {uniform_crop_corner(32, 32, 32, view) for view in range(3)} == {(0, 0)}
    ten = ActionData("csv", str(tmp_path), "clip", test_clips=10, **SMALL).test_set()[0]["video"]
    one = ActionData("csv", str(tmp_path), "clip", test_clips=1, **SMALL).test_set()[0]["video"]
    with torch.no_grad():
        assert torch.allclose(task(ten[None]), task(one[None]), atol=1e-6)


def test_a_miniature_is_tested_with_thirty_views(tmp_path: Path, task: ActionClassification) -> None:
    root = layouts.ucf101(tmp_path / "data")
    data = ActionData("ucf101", str(root), "dense", test_clips=10, test_crops=3, **SMALL)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    top1 = trainer.test(task, data, verbose=False)[0]["test/top1"]
    sample = data.test_set()[0]
    with torch.no_grad():
        assert top1 == float(int(task(sample["video"][None]).argmax()) == sample["label"])
