from pathlib import Path

import pytest
import torch

from saccade.data.clips import (
    ClipDataset,
    ClipRecord,
    ClipSampler,
    collate_clips,
    existing,
    read_csv,
    read_frame_list,
    scan_folder,
)
from saccade.data.loading import make_loader
from saccade.data.transforms import EvalTransform, TrainTransform
from saccade.data.video import VideoError
from saccade.nn.input_spec import InputSpec
from tests.data.media import empty, jpegs, truncated, video

SPEC = InputSpec(size=32, frames=4)
EVAL = EvalTransform(SPEC, views=3)
TRAIN = TrainTransform(SPEC, resize=None)


@pytest.fixture
def records(tmp_path: Path) -> list[ClipRecord]:
    """Good, truncated, without frames, good, gone, good."""
    return [
        ClipRecord(video(tmp_path / "a.mp4"), 0),
        ClipRecord(truncated(tmp_path / "b.mp4"), 1),
        ClipRecord(empty(tmp_path / "c.mp4"), 1),
        ClipRecord(jpegs(tmp_path / "d"), 2, frames=12),
        ClipRecord(tmp_path / "e.mp4", 1),
        ClipRecord(video(tmp_path / "f.avi"), 3),
    ]


def test_evaluation_leaves_out_what_cannot_be_read_and_says_so(records: list[ClipRecord]) -> None:
    dataset = ClipDataset(records, ClipSampler("segment", 4, views=2), EVAL, train=False)
    batch = collate_clips([dataset[i] for i in range(6)])
    assert batch["video"].shape == (3, 6, 3, 4, 32, 32)
    assert batch["label"].tolist() == [0, 2, 3]
    assert batch["index"].tolist() == [0, 3, 5]
    assert [Path(path).name for path in batch["skipped"]] == ["b.mp4", "c.mp4", "e.mp4"]


def test_a_batch_of_nothing_readable_is_empty(records: list[ClipRecord]) -> None:
    dataset = ClipDataset(records[1:3], ClipSampler("segment", 4), EVAL, train=False)
    batch = collate_clips([dataset[0], dataset[1]])
    assert len(batch["label"]) == 0
    assert len(batch["skipped"]) == 2


def test_training_takes_the_next_readable_clip(records: list[ClipRecord]) -> None:
    dataset = ClipDataset(records, ClipSampler("segment", 4), TRAIN, train=True)
    loader = make_loader(dataset, 6, collate=collate_clips)
    batch = next(iter(loader))
    assert batch["video"].shape == (6, 1, 3, 4, 32, 32)
    assert batch["label"].tolist() == [0, 2, 2, 2, 3, 3]
    assert len(batch["skipped"]) == 4


def test_training_on_nothing_readable_ends_with_the_reason(records: list[ClipRecord]) -> None:
    with pytest.raises(VideoError, match=r"none of the 2 clips can be read; the first is .*b\.mp4"):
        ClipDataset(records[1:3], ClipSampler("segment", 4), TRAIN, train=True)[0]


@pytest.mark.parametrize("train", [True, False])
def test_strict_mode_raises(records: list[ClipRecord], train: bool) -> None:
    dataset = ClipDataset(records, ClipSampler("segment", 4), TRAIN if train else EVAL, train=train, strict=True)
    with pytest.raises(VideoError, match=r"clip 1: .*b\.mp4"):
        dataset[1]


def test_a_clip_longer_than_the_video_repeats_frames(tmp_path: Path) -> None:
    record = ClipRecord(video(tmp_path / "short.mp4", frames=3), 0)
    for rule in ("segment", "dense", "interval", "clip"):
        sampler = ClipSampler(rule, frames=16)
        assert ClipDataset([record], sampler, TRAIN, train=True)[0]["video"].shape == (1, 3, 16, 32, 32)
        assert ClipDataset([record], sampler, EVAL, train=False)[0]["video"].shape == (3, 3, 16, 32, 32)


def test_augmentation_is_a_function_of_the_draw(tmp_path: Path) -> None:
    dataset = ClipDataset([ClipRecord(video(tmp_path / "a.mp4", 40), 0)] * 3, ClipSampler("dense"), TRAIN, train=True)
    batches = []
    for workers in (0, 1):
        loader = make_loader(dataset, 3, train=True, num_workers=workers, collate=collate_clips)
        batches.append(next(iter(loader))["video"])
    assert torch.equal(*batches)
    assert not torch.equal(batches[0][0], batches[0][1])


def test_folder_of_classes(tmp_path: Path) -> None:
    for name in ("zebra/1.mp4", "ant/2.mp4", "ant/1.avi"):
        video(tmp_path / name, frames=2)
    jpegs(tmp_path / "zebra" / "frames")
    (tmp_path / "ant" / "notes.txt").write_text("not a video")
    records, classes = scan_folder(tmp_path)
    assert classes == ["ant", "zebra"]
    found = [(record.path.name, record.label) for record in records]
    assert found == [("1.avi", 0), ("2.mp4", 0), ("1.mp4", 1), ("frames", 1)]


@pytest.mark.parametrize(
    ("text", "separator", "names"),
    [
        ("a b.mp4 3\n\nc.mp4 0\n", None, ["a b.mp4", "c.mp4"]),
        ("a.mp4,1\n", None, ["a.mp4"]),
        ("a.mp4;1", ";", ["a.mp4"]),
    ],
)
def test_csv(tmp_path: Path, text: str, separator: str | None, names: list[str]) -> None:
    (tmp_path / "list.csv").write_text(text)
    assert [record.path.name for record in read_csv(tmp_path / "list.csv", separator=separator)] == names


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 one", "a.mp4 -1", "a.mp4 1.5"])
def test_csv_bad_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.csv").write_text(f"ok.mp4 1\n\n{line}\n")
    with pytest.raises(ValueError, match=r"list\.csv, line 3: expected 'path label'"):
        read_csv(tmp_path / "list.csv")


@pytest.mark.parametrize("line", ["v1 12", "v1 twelve 3", "v1 12 -3", "12 3"])
def test_frame_list(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text("v_a 30 7\n")
    (record,) = read_frame_list(tmp_path / "list.txt", tmp_path)
    assert (record.path, record.frames, record.label) == (tmp_path / "v_a", 30, 7)
    (tmp_path / "list.txt").write_text(f"v_a 30 7\n{line}\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 2: expected 'folder num_frames label'"):
        read_frame_list(tmp_path / "list.txt", tmp_path)


def test_missing_files_are_counted_or_refused(tmp_path: Path) -> None:
    there, gone = ClipRecord(video(tmp_path / "a.mp4", 2), 0), ClipRecord(tmp_path / "gone.mp4", 0)
    with pytest.warns(UserWarning, match=r"set: 1 of 2 clips are not there, such as .*gone\.mp4"):
        assert existing([there, gone], "set") == [there]
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        existing([there, gone], "set", strict=True)
    with pytest.raises(FileNotFoundError, match="1 of 1"):
        existing([gone], "set")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda tmp: read_csv(tmp / "none.csv"), FileNotFoundError, "no list at"),
        (lambda tmp: scan_folder(tmp / "none"), FileNotFoundError, "no folder of videos"),
        (lambda tmp: scan_folder(tmp), FileNotFoundError, "holds no videos"),
        (lambda tmp: ClipDataset([], ClipSampler(), EVAL, train=False), ValueError, "empty"),
        (lambda tmp: ClipSampler("random"), ValueError, "segment, dense, interval and clip"),
        (lambda tmp: ClipSampler(frames=0), ValueError, "positive"),
        (lambda tmp: ClipSampler("segment", views=10), ValueError, "at most 2"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(tmp_path: Path, call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)
