"""Training out of shards, through the task, and exactly as out of files where the order does not matter."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from saccade.action.datamodule import ActionData
from saccade.action.shard_data import ShardData, write_splits
from saccade.action.task import ActionClassification
from saccade.nn.video_resnet import VideoResNet
from saccade.training.cli import run
from tests.action import layouts

pytest.importorskip("webdataset")
pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore:Something-Something"),
    pytest.mark.filterwarnings("ignore:.*LightningCLI's.*"),
    pytest.mark.filterwarnings("ignore:.*log_every_n_steps.*"),
]

SMALL = {"frames": 2, "size": 32, "resize": None, "batch_size": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature Something-Something V1 as files and as shards, one clip a shard."""
    base = tmp_path_factory.mktemp("ssv1")
    layouts.ssv1(base / "files")
    write_splits(ActionData("ssv1", str(base / "files")), base / "shards", most_clips=1)
    return base


def test_evaluation_agrees_with_files(root: Path) -> None:
    plain = ActionData("ssv1", str(root / "files"), test_clips=2, test_crops=3, **SMALL)
    shards = ShardData(str(root / "shards"), test_clips=2, test_crops=3, **SMALL)
    for name in ("val_dataloader", "test_dataloader"):
        ours, theirs = ({int(b["label"]): b["video"] for b in getattr(d, name)()} for d in (shards, plain))
        assert sorted(ours) == sorted(theirs) == [0, 1, 2]
        assert all(torch.equal(ours[label], theirs[label]) for label in ours)
    assert next(iter(shards.test_dataloader()))["video"].shape[1] == 6


@pytest.mark.filterwarnings("ignore:(EPIC|Gym|Diving)")
@pytest.mark.parametrize(
    ("layout", "write"), [("epic", layouts.epic), ("gym99", layouts.finegym), ("diving48", layouts.diving48)]
)
def test_parts_of_videos_and_several_labels_come_back(tmp_path: Path, layout: str, write: object) -> None:
    files = ActionData(layout, str(write(tmp_path / "files")), **SMALL)
    write_splits(files, tmp_path / "shards", ("val",), seed=None)
    ours, theirs = (list(data.val_dataloader()) for data in (ShardData(str(tmp_path / "shards"), **SMALL), files))
    assert len(ours) == len(theirs) == 1
    assert torch.equal(ours[0]["video"], theirs[0]["video"])
    assert torch.equal(ours[0]["label"], theirs[0]["label"])


def test_classes_and_their_mirror_images_come_with_the_shards(root: Path) -> None:
    split = ShardData(str(root / "shards")).split("train")
    assert split.classes == layouts.PLAIN
    assert split.mirrored == {0: 1, 1: 0}


def test_a_run_trains_tests_and_sees_another_order_each_epoch(root: Path, tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Watched(ActionClassification):
        def on_train_epoch_start(self) -> None:
            seen.append([])

        def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
            seen[-1].append(int(batch["label"]))
            return super().training_step(batch, batch_idx)

    task = Watched(VideoResNet(3, "basic", (1,), stem_width=8, stage_widths=(8,)), 3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=6, enable_model_summary=False, default_root_dir=tmp_path, **quiet)
    data = ShardData(str(root / "shards"), flip=False, **SMALL)
    trainer.fit(task, data)
    assert all(sorted(epoch) == [0, 1, 2] for epoch in seen)
    assert len({tuple(epoch) for epoch in seen}) > 1
    assert 0 <= trainer.test(task, data, verbose=False)[0]["test/top1"] <= 1
    assert sum(len(batch.index) for batch in trainer.predict(task, data)) == 3


def test_a_resumed_run_goes_on_where_it_stopped(root: Path) -> None:
    whole = ShardData(str(root / "shards"), **SMALL).train_dataloader()
    batches = [batch["video"] for _ in range(3) for batch in whole]
    resumed = ShardData(str(root / "shards"), **SMALL)
    resumed.load_state_dict({"epoch": 1, "batch": 2})
    loader = resumed.train_dataloader()
    assert len(loader) == 3
    rest = [batch["video"] for _ in range(2) for batch in loader]
    assert len(rest) == 4
    assert all(torch.equal(a, b) for a, b in zip(rest, batches[5:], strict=True))


def test_a_recipe_takes_shards_by_class_path(root: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"""
model:
  class_path: saccade.action.task.ActionClassification
  init_args:
    num_classes: 3
    backbone:
      class_path: saccade.nn.video_resnet.VideoResNet
      init_args: {{num_classes: 3, block: basic, layers: [1], stem_width: 8, stage_widths: [8]}}
data:
  class_path: saccade.action.shard_data.ShardData
  init_args:
    root: {root / "shards"}
    buffer: 4
    frames: 2
    size: 32
    resize: null
    batch_size: 1
trainer: {{max_epochs: 1, accelerator: cpu, logger: false, enable_progress_bar: false}}
"""
    )
    cli = run("fit", ["--config", str(tmp_path / "recipe.yaml"), "--folder", str(tmp_path / "run")])
    assert cli.trainer.global_step == 3
    assert cli.datamodule.buffer == 4


def test_shards_by_pattern_are_counted_where_there_is_no_index(root: Path, tmp_path: Path) -> None:
    pattern = str(root / "shards" / "train" / "shard-{000000..000002}.tar")
    assert len(ShardData(shards={"train": pattern}, **SMALL).train_dataloader()) == 3
    bare = tmp_path / "shard-000000.tar"
    bare.write_bytes((root / "shards" / "train" / "shard-000000.tar").read_bytes())
    assert len(ShardData(shards={"train": str(bare)}, **SMALL).train_dataloader()) == 1
    assert len(ShardData(shards={"train": str(bare)}, samples=7, **SMALL).train_dataloader()) == 7
    with pytest.raises(ValueError, match="give samples"):
        ShardData(shards={"train": "https://example.org/{0..3}.tar"}, **SMALL).train_dataloader()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shards": {"training": "x"}}, ValueError, "train, val and test, not 'training'"),
        ({"samples": 0}, ValueError, "samples has to be at least 1"),
        ({"root": "nowhere"}, FileNotFoundError, "1 of 1 shards are not there, such as nowhere/train"),
    ],
)
def test_bad_input(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ShardData(**options).train_dataloader()
