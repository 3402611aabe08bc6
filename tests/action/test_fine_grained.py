"""Diving-48 and FineGym in their real layouts."""

import json
from pathlib import Path

import pytest
import torch

from saccade.action.datamodule import ActionData
from saccade.action.fine_grained import read_diving48, read_finegym
from saccade.data.clips import ClipRecord, Excerpt, open_clip
from saccade.data.video import ArrayClip, VideoError, decode_all
from tests.action import layouts
from tests.data.media import moving, video

pytestmark = pytest.mark.filterwarnings("ignore:(Diving-48|Gym)")


def test_diving48(tmp_path: Path) -> None:
    root = layouts.diving48(tmp_path, media=False)
    split = read_diving48(root, "train")
    assert split.classes == ["Back, 15som, 05Twis, FREE", "Forward, 35som, NoTwis, PIKE"]
    assert [(r.path.relative_to(root).as_posix(), r.label) for r in split.records] == [
        ("rgb/-mIVSwkEMfo_00001.mp4", 0),
        ("rgb/98Hi6MPgHPM_00153.mp4", 1),
    ]
    assert [r.label for r in read_diving48(root, "test").records] == [1]
    with pytest.warns(UserWarning, match="Diving-48 V2 val has 1970 clips where published; this list has 1"):
        read_diving48(root, "val")


def test_diving48_versions_are_not_mixed(tmp_path: Path) -> None:
    root = layouts.diving48(tmp_path, media=False, version=1)
    with pytest.raises(FileNotFoundError, match=r"V2_train\.json; Diving48_train\.json has the labels of vers"):
        read_diving48(root, "train")
    assert len(read_diving48(root, "train", version=1).records) == 2
    (root / "rgb" / "-mIVSwkEMfo_00001.mp4").touch()
    with pytest.raises(FileNotFoundError, match="is to be had from http"):
        ActionData("diving48", str(root)).split("train")
    with pytest.warns(UserWarning, match="1 of 2 clips are not there"):
        assert len(ActionData("diving48-v1", str(root)).split("train").records) == 1


def entry(**change: object) -> str:
    good = {"vid_name": "a", "label": 0, "start_frame": 0, "end_frame": 5}
    return (
        "[\n"
        + json.dumps(good)
        + ",\n"
        + json.dumps({k: v for k, v in (good | change).items() if v is not None})
        + "\n]"
    )


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("V2_train", entry(label="0"), r"train\.json, line 3: expected an object with 'vid_name' and 'label'"),
        ("V2_train", entry(label=True), r"train\.json, line 3: expected an object"),
        ("V2_train", entry(vid_name=None), r"train\.json, line 3"),
        ("V2_train", entry(label=2), r"line 3: the label 2 is none of the 2 of Diving48_vocab\.json"),
        ("V2_train", entry(end_frame=0), "line 3: expected a 'start_frame' before the 'end_frame'"),
        ("V2_train", entry(end_frame=None), "line 3: expected a 'start_frame' before"),
        ("V2_train", "[1]", "entry 1: expected an object"),
        ("V2_train", "{}", "expected a list of clips, found dict"),
        ("V2_train", "[\n{", "line 2: not JSON"),
        ("vocab", "{}", r"vocab\.json: expected a list"),
    ],
)
def test_malformed_diving48(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = layouts.diving48(tmp_path, media=False)
    (root / f"Diving48_{file}.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_diving48(root, "train")


def test_finegym_finds_its_videos_in_each_form(tmp_path: Path) -> None:
    found = {}
    for kind in ("subactions", "events", "videos"):
        root = layouts.finegym(tmp_path / kind, media=False, kind=kind)
        record = read_finegym(root, "train").records[0]
        found[kind] = (record.path.relative_to(root).as_posix(), record.seconds, record.label)
    assert found == {
        "subactions": ("subactions/0LtLS9wROrk_E_002407_002435_A_0003_0005.mp4", None, 3),
        "events": ("events/0LtLS9wROrk_E_002407_002435.mp4", (3.2, 4.6), 3),
        "videos": ("videos/0LtLS9wROrk.mp4", (2410.7, 2412.1), 3),
    }


def test_finegym_classes_and_seconds_from_names(tmp_path: Path) -> None:
    root = layouts.finegym(tmp_path, media=False, classes=288)
    assert read_finegym(root, "train", 288).classes[:2] == ["(VT) tucked, 0.5 turn", "1"]
    with pytest.warns(UserWarning, match="1 of 1 elements of gym288_val_element.txt have no times"):
        (record,) = read_finegym(root, "test", 288).records
    assert record.path.name == "_A_E_y-zABC_E_000000_000004.mp4"
    assert record.seconds == (0.0, 2.0)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("gym99_train_element_v1.1.txt", "x_E_0_1_A_0_1 0\nx_E_0_1_A_0 1\n", r"v1\.1\.txt, line 2: expected 'ID_E_"),
        ("gym99_train_element_v1.1.txt", "x_E_0_1_A_0_1 99\n", "line 1: .* with a class below 99"),
        ("gym99_train_element_v1.1.txt", "x_E_0_1_A_0_1\n", "line 1"),
        ("gym99_categories.txt", "0 tucked\n", r"categories\.txt, line 1: expected 'Clabel"),
        ("finegym_annotation_info_v1.1.json", "[]", "expected an object of videos, found list"),
        (
            "finegym_annotation_info_v1.1.json",
            '{"0LtLS9wROrk": {"E_002407_002435": {"segments": {"A_0003_0005": {"timestamps": [[2, 1]]}}}}}',
            r"0LtLS9wROrk, E_002407_002435, A_0003_0005: expected timestamps",
        ),
    ],
)
def test_malformed_finegym(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = layouts.finegym(tmp_path, media=False)
    (root / "annotations" / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_finegym(root, "train")


def test_finegym_without_videos_or_lists(tmp_path: Path) -> None:
    root = layouts.finegym(tmp_path, media=False)
    (root / "events").rmdir()
    with pytest.raises(FileNotFoundError, match="none of the folders subactions, events and videos"):
        read_finegym(root, "train")
    with pytest.raises(FileNotFoundError, match=r"gym288_train_element_v1\.0\.txt"):
        read_finegym(root, "train", 288)


def test_an_action_is_read_out_of_its_event(tmp_path: Path) -> None:
    root = layouts.finegym(tmp_path)
    data = ActionData("gym99", str(root), frames=2, size=32, resize=None)
    with pytest.warns(UserWarning, match="Gym99 train has 20484"):
        record = data.split("train").records[0]
    part = open_clip(record)
    assert len(part) == 7  # 3.2 to 4.6 s at 5 frames a second
    assert torch.equal(part.read([0, 6]), decode_all(record.path)[[16, 22]])
    with pytest.raises(IndexError, match="frames 0 to 6, not 7"):
        part.read([7])
    part.close()
    assert data.train_set()[0]["video"].shape == (1, 3, 2, 32, 32)


def test_a_part_behind_the_end_is_no_clip(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 10, fps=5)
    with pytest.raises(VideoError, match=r"a\.mp4 ends after 2\.0 s, before 3\.0 s begin"):
        open_clip(ClipRecord(path, seconds=(3.0, 4.0)))
    assert len(open_clip(ClipRecord(path, seconds=(1.0, 9.0)))) == 5
    torch.save(moving(9), tmp_path / "b.pt")
    assert len(Excerpt(ArrayClip(tmp_path / "b.pt"), (0.1, 0.1))) == 1
