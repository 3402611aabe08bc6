import json
from pathlib import Path

import pytest

from saccade.action.datamodule import ActionData
from saccade.action.datasets import (
    READERS,
    SOURCES,
    mirrored_labels,
    read_hmdb51,
    read_kinetics,
    read_ssv1,
    read_ssv2,
    read_ucf101,
)
from tests.action import layouts

pytestmark = pytest.mark.filterwarnings("ignore:(Something-Something|Diving-48|Gym)")


def paths(split: object, root: Path) -> list[tuple[str, int]]:
    return [(str(record.path.relative_to(root)), record.label) for record in split.records]


def test_ssv1(tmp_path: Path) -> None:
    split = read_ssv1(layouts.ssv1(tmp_path, media=False), "train")
    assert paths(split, tmp_path)[:2] == [("20bn-something-something-v1/1", 0), ("20bn-something-something-v1/2", 1)]
    assert split.records[0].template == "{:05d}.jpg"
    assert split.mirrored == {0: 1, 1: 0}


def test_ssv1_label_files_differ_in_size_from_the_published_and_say_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"V1 train has 86017 clips where published; this list has 3"):
        read_ssv1(layouts.ssv1(tmp_path, media=False), "train")


@pytest.mark.parametrize("new", [True, False])
def test_ssv2_in_either_release(tmp_path: Path, new: bool) -> None:
    split = read_ssv2(layouts.ssv2(tmp_path, media=False, new=new), "val")
    assert paths(split, tmp_path) == [("20bn-something-something-v2/11.webm", 2)]
    assert split.mirrored == {0: 1, 1: 0}


def test_kinetics_as_folders_and_as_lists(tmp_path: Path) -> None:
    root = layouts.kinetics(tmp_path / "folders")
    split = read_kinetics(root, "train")
    assert split.classes == ["abseiling", "air drumming"]
    assert paths(split, root)[0] == ("train/abseiling/aaaaaaaaaaa_000010_000020.mp4", 0)
    (tmp_path / "train.csv").write_text("videos/a.mp4 1\n")
    assert paths(read_kinetics(tmp_path, "train"), tmp_path) == [("videos/a.mp4", 1)]
    (tmp_path / "val.csv").write_text(
        'label,youtube_id,time_start,time_end,split\n"b, c",-x_y12345678,3,13,val\na,bbbbbbbbbbb,0,10,val\n'
    )
    found = paths(read_kinetics(tmp_path, "val"), tmp_path)
    assert found == [("val/b, c/-x_y12345678_000003_000013.mp4", 1), ("val/a/bbbbbbbbbbb_000000_000010.mp4", 0)]


def test_kinetics_class_names_are_alphabetical(data_root: Path) -> None:
    file = data_root / "motion-squeeze" / "kinetics_label_map.txt"
    if not file.exists():
        pytest.skip(f"no labels at {file}")
    names = file.read_text().splitlines()
    assert len(names) == 400
    assert names == sorted(names)


def test_ucf101(tmp_path: Path) -> None:
    root = layouts.ucf101(tmp_path)
    assert paths(read_ucf101(root, "train"), root)[0] == ("UCF-101/Archery/v_Archery_g08_c01.avi", 1)
    assert paths(read_ucf101(root, "test"), root) == [("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 0)]


def test_hmdb51(tmp_path: Path) -> None:
    root = layouts.hmdb51(tmp_path)
    assert [label for _, label in paths(read_hmdb51(root, "train"), root)] == [0, 1]
    assert paths(read_hmdb51(root, "val"), root) == [("wave/two.avi", 1)]


def test_mirrored_labels_need_their_mirror_image() -> None:
    assert mirrored_labels(["Turning the camera left", "Turning the camera right", "Leftovers"]) == {0: 1, 1: 0}
    with pytest.raises(ValueError, match="'Moving left' has no mirror image"):
        mirrored_labels(["Moving left", "Standing"])


def broken(root: Path, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


@pytest.mark.parametrize(
    ("make", "file", "text", "read", "message"),
    [
        (layouts.ssv1, "something-something-v1-train.csv", "1;Nothing like it\n", read_ssv1, r"train\.csv, line 1"),
        (layouts.ssv1, "something-something-v1-train.csv", "1 Opening\n", read_ssv1, "expected 'id;label'"),
        (layouts.ssv2, "labels/train.json", '[{"id": "1"}]', read_ssv2, r"train\.json, entry 1: expected an object"),
        (layouts.ssv2, "labels/train.json", "{}", read_ssv2, "expected a list"),
        (layouts.ssv2, "labels/train.json", "[\n{", read_ssv2, r"train\.json, line 2: not JSON"),
        (layouts.ssv2, "labels/labels.json", "[]", read_ssv2, r"labels\.json: expected an object"),
        (
            layouts.ssv2,
            "labels/train.json",
            json.dumps([{"id": "1", "template": "Eating [something]"}]),
            read_ssv2,
            "'Eating something' is not among the 3 labels",
        ),
        (layouts.ucf101, "ucfTrainTestlist/trainlist01.txt", "Swing/v.avi 1\n", read_ucf101, r"01\.txt, line 1"),
        (layouts.ucf101, "ucfTrainTestlist/classInd.txt", "one Archery\n", read_ucf101, r"classInd\.txt, line 1"),
        (
            layouts.hmdb51,
            "testTrainMulti_7030_splits/wave_test_split1.txt",
            "one.avi 1\ntwo.avi 5\n",
            read_hmdb51,
            r"split1\.txt, line 2: expected",
        ),
        (
            layouts.kinetics,
            "train.csv",
            "label,youtube_id,time_start,time_end,split\na,b,c\n",
            read_kinetics,
            r"train\.csv, line 2",
        ),
    ],
)
def test_malformed_lists_are_named(
    tmp_path: Path, make: object, file: str, text: str, read: object, message: str
) -> None:
    make(tmp_path, media=False)
    broken(tmp_path, file, text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "train")


@pytest.mark.parametrize("layout", sorted(READERS))
def test_missing_data_are_named(tmp_path: Path, layout: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no data set in the layout '{layout}' at .*gone"):
        ActionData(layout, str(tmp_path / "gone")).train_set()
    with pytest.raises(FileNotFoundError) as caught:
        ActionData(layout, str(tmp_path)).train_set()
    assert SOURCES.get(layout, "") in str(caught.value)


def test_half_present_data_are_counted(tmp_path: Path) -> None:
    layouts.ucf101(tmp_path, media=False)
    with pytest.raises(FileNotFoundError, match=r"2 of 2 clips are not there, such as .*v_Archery_g08_c01\.avi"):
        ActionData("ucf101", str(tmp_path)).train_set()


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4 7\n")
    with pytest.raises(ValueError, match=r"a\.mp4 has label 7, outside 5 classes"):
        ActionData("csv", str(tmp_path), num_classes=5).train_set()


def test_wrong_fold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fold has to be 1, 2 or 3, not 4"):
        ActionData("hmdb51", str(layouts.hmdb51(tmp_path, media=False)), fold=4).train_set()
