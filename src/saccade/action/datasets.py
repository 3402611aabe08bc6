"""The layouts in which action data sets come: text in, records out."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from saccade.action.fine_grained import read_diving48, read_finegym
from saccade.action.splits import Split, compare_size, first_there, read_json
from saccade.data.clips import (
    ClipRecord,
    numbered_lines,
    read_csv,
    read_frame_list,
    scan_folder,
)

Layout = Literal[
    "folder",
    "csv",
    "frames",
    "ssv1",
    "ssv2",
    "kinetics",
    "ucf101",
    "hmdb51",
    "diving48",
    "diving48-v1",
    "gym99",
    "gym288",
    "epic",
]

SOURCES: dict[str, str] = {
    "ssv1": "https://www.qualcomm.com/developer/software/something-something-v-2-dataset (version 1 on request)",
    "ssv2": "https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
    "kinetics": "https://github.com/cvdfoundation/kinetics-dataset",
    "ucf101": "https://www.crcv.ucf.edu/data/UCF101.php",
    "hmdb51": "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database",
    "diving48": "http://www.svcl.ucsd.edu/projects/resound/dataset.html",
    "diving48-v1": "http://www.svcl.ucsd.edu/projects/resound/dataset.html",
    "gym99": "https://sdolivia.github.io/FineGym",
    "gym288": "https://sdolivia.github.io/FineGym",
    "epic": "https://epic-kitchens.github.io",
}
"""Layout to where the data set is to be had."""

SSV1_SIZES = {"train": 86_017, "val": 11_522, "test": 10_960}
SSV2_SIZES = {"train": 168_913, "val": 24_777, "test": 27_157}
EPIC_SIZES = {"train": 67_217, "val": 9_668}


def read_ssv1(root: Path, split: str) -> Split:
    """Something-Something V1: `something-something-v1-{train,validation,labels}.csv` and JPEG folders.

    Args:
        root: Folder of the lists, and of `ID/00001.jpg` in it or in its folder `20bn-something-something-v1`.
        split: `train` or `val`.

    Returns:
        The split.

    Raises:
        FileNotFoundError: A list is missing.
        ValueError: A malformed line, or a label that the list of labels lacks.
    """
    classes = [line for _, line in numbered_lines(root / "something-something-v1-labels.csv")]
    ids = {name: i for i, name in enumerate(classes)}
    file = root / f"something-something-v1-{_long(split)}.csv"
    folder = root / "20bn-something-something-v1"
    folder = folder if folder.is_dir() else root
    records = []
    for number, line in numbered_lines(file):
        clip, separator, label = line.partition(";")
        if not separator or label not in ids:
            raise ValueError(
                f"{file}, line {number}: expected 'id;label' with one of {len(ids)} labels, found {line!r}"
            )
        records.append(ClipRecord(folder / clip, ids[label], None, "{:05d}.jpg", 12.0))
    compare_size("Something-Something V1", split, len(records), SSV1_SIZES)
    return Split(records, classes, mirrored_labels(classes))


def read_ssv2(root: Path, split: str) -> Split:
    """Something-Something V2: the JSON lists (either release's names) and `.webm` files.

    Args:
        root: Folder of the lists (or of a folder `labels` with them) and of `20bn-something-something-v2/ID.webm`.
        split: `train` or `val`.

    Returns:
        The split.

    Raises:
        FileNotFoundError: A list is missing.
        ValueError: A malformed list, or a template that the list of labels lacks.
    """
    base = root / "labels" if (root / "labels").is_dir() else root
    names = first_there(base / "labels.json", base / "something-something-v2-labels.json")
    file = first_there(base / f"{_long(split)}.json", base / f"something-something-v2-{_long(split)}.json")
    try:
        ids = {label: int(number) for label, number in read_json(names).items()}
    except (AttributeError, ValueError, TypeError):
        raise ValueError(f"{names}: expected an object of label to class id") from None
    folder = root / "20bn-something-something-v2"
    folder = folder if folder.is_dir() else root
    entries = read_json(file)
    if not isinstance(entries, list):
        raise ValueError(f"{file}: expected a list of clips, found {type(entries).__name__}")
    records = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or "id" not in entry or "template" not in entry:
            raise ValueError(
                f"{file}, entry {number}: expected an object with 'id' and 'template', found {entry!r:.80}"
            )
        label = re.sub(r"[\[\]]", "", entry["template"])
        if label not in ids:
            raise ValueError(f"{file}, entry {number}: the template {label!r} is not among the {len(ids)} labels")
        records.append(ClipRecord(folder / f"{entry['id']}.webm", ids[label]))
    compare_size("Something-Something V2", split, len(records), SSV2_SIZES)
    classes = sorted(ids, key=lambda label: ids[label])
    return Split(records, classes, mirrored_labels(classes) if sorted(ids.values()) == list(range(len(ids))) else {})


def read_kinetics(root: Path, split: str) -> Split:
    """Kinetics: `{train,val}.csv` with `path label` lines as SlowFast's, else folders `train/CLASS/*.mp4`.

    Args:
        root: Folder of the lists or of the folders.
        split: `train`, `val` or `test`.

    Returns:
        The split; class ids are the alphabetical order of the class names.

    Raises:
        FileNotFoundError: Neither list nor folder is there.
        ValueError: A malformed line.
    """
    file = root / f"{split}.csv"
    if not file.is_file():
        return Split(*scan_folder(first_there(root / split, root / _long(split))))
    _, first = next(numbered_lines(file), (0, ""))
    if first.startswith("label,youtube_id"):
        return _read_kinetics_annotations(root, file, split)
    return Split(read_csv(file, root))


def _read_kinetics_annotations(root: Path, file: Path, split: str) -> Split:
    """The official annotations: label,youtube_id,time_start,time_end,split."""
    rows = []
    for number, line in list(numbered_lines(file))[1:]:
        parts = [part.strip('"') for part in line.rsplit(",", 4)]
        if len(parts) != 5 or not parts[2].isdigit() or not parts[3].isdigit():
            raise ValueError(
                f"{file}, line {number}: expected label,youtube_id,time_start,time_end,split, found {line!r}"
            )
        rows.append(parts)
    classes = sorted({row[0] for row in rows})
    ids = {name: i for i, name in enumerate(classes)}
    records = [
        ClipRecord(root / split / label / f"{video}_{int(start):06d}_{int(end):06d}.mp4", ids[label])
        for label, video, start, end, _ in rows
    ]
    return Split(records, classes)


def read_ucf101(root: Path, split: str, fold: int = 1) -> Split:
    """UCF101: `UCF-101/CLASS/*.avi` and `ucfTrainTestlist/{classInd,trainlist0N,testlist0N}.txt`.

    Args:
        root: Folder of both.
        split: `train`, or `val` and `test` for the test list.
        fold: 1, 2 or 3.

    Returns:
        The split.

    Raises:
        FileNotFoundError: A list is missing.
        ValueError: A malformed line, or a class that `classInd.txt` lacks.
    """
    lists = root / "ucfTrainTestlist"
    ids: dict[str, int] = {}
    for number, line in numbered_lines(lists / "classInd.txt"):
        match = re.fullmatch(r"(\d+)\s+(\S+)", line)
        if not match:
            raise ValueError(f"{lists / 'classInd.txt'}, line {number}: expected '1 ApplyEyeMakeup', found {line!r}")
        ids[match[2]] = int(match[1]) - 1
    file = lists / f"{'train' if split == 'train' else 'test'}list0{_fold(fold)}.txt"
    records = []
    for number, line in numbered_lines(file):
        name = line.split()[0]
        label = ids.get(name.partition("/")[0])
        if label is None:
            raise ValueError(f"{file}, line {number}: expected 'CLASS/file.avi' of a known class, found {line!r}")
        records.append(ClipRecord(root / "UCF-101" / name, label))
    return Split(records, sorted(ids, key=lambda name: ids[name]))


def read_hmdb51(root: Path, split: str, fold: int = 1) -> Split:
    """HMDB51: `CLASS/*.avi` and `testTrainMulti_7030_splits/CLASS_test_splitN.txt`.

    Args:
        root: Folder of both.
        split: `train`, or `val` and `test` for the test clips.
        fold: 1, 2 or 3.

    Returns:
        The split; class ids are the alphabetical order of the class names.

    Raises:
        FileNotFoundError: The lists are missing.
        ValueError: A malformed line.
    """
    lists = root / "testTrainMulti_7030_splits"
    files = sorted(lists.glob(f"*_test_split{_fold(fold)}.txt"))
    if not files:
        raise FileNotFoundError(f"no lists of HMDB51 such as {lists / f'brush_hair_test_split{fold}.txt'}")
    classes = [file.name.removesuffix(f"_test_split{fold}.txt") for file in files]
    wanted = "1" if split == "train" else "2"
    records = []
    for label, file in enumerate(files):
        for number, line in numbered_lines(file):
            match = re.fullmatch(r"(.+\S)\s+([012])", line)
            if not match:
                raise ValueError(f"{file}, line {number}: expected 'name.avi 0, 1 or 2', found {line!r}")
            if match[2] == wanted:
                records.append(ClipRecord(root / classes[label] / match[1], label))
    return Split(records, classes)


def read_epic(root: Path, split: str) -> Split:
    """EPIC-Kitchens-100: `EPIC_100_{train,validation}.csv` and folders of frames; labels are pairs of verb and noun.

    Args:
        root: Folder of the lists (or of a folder `epic-kitchens-100-annotations` with them), and of
            `P01/rgb_frames/P01_11/frame_0000000001.jpg`.
        split: `train` or `val`.

    Returns:
        The split, one record a segment, in the order of the list.

    Raises:
        FileNotFoundError: The list is missing.
        ValueError: A missing column, or a malformed line.
    """
    name = f"EPIC_100_{_long(split)}.csv"
    file = first_there(root / name, root / "epic-kitchens-100-annotations" / name)
    needed = ("participant_id", "video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")
    records = []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        missing = [column for column in needed if column not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{file}, line 1: no column {', '.join(missing)}")
        for row in rows:
            video = row["video_id"]
            # videos added in 2020 have numbers of three digits and 50 frames a second
            fps = 50.0 if re.fullmatch(r"P\d+_\d{3}", video or "") else 60.0
            try:
                label = int(row["verb_class"]), int(row["noun_class"])
                start, stop = (
                    int(row.get(f"{end}_frame") or 1 + round(fps * timestamp_seconds(row[f"{end}_timestamp"])))
                    for end in ("start", "stop")
                )
            except (ValueError, TypeError):
                label, start, stop = (-1, -1), 0, -1
            if min(label) < 0 or start < 0 or stop < start:
                raise ValueError(
                    f"{file}, line {rows.line_num}: expected classes from 0 and a start before the stop, "
                    f"found {', '.join(str(value) for value in row.values())[:160]}"
                )
            folder = root / str(row["participant_id"]) / "rgb_frames" / str(video)
            first = max(start, 1)
            records.append(ClipRecord(folder, label, stop - first + 1, "frame_{:010d}.jpg", fps, first))
    compare_size("EPIC-Kitchens-100", split, len(records), EPIC_SIZES)
    return Split(records)


def timestamp_seconds(text: str) -> float:
    """Seconds of a time `HH:MM:SS.fraction`, with any number of digits in the fraction.

    Args:
        text: The time.

    Returns:
        Seconds.

    Raises:
        ValueError: Not such a time.

    Example:
        >>> timestamp_seconds("00:01:02.5"), timestamp_seconds("00:00:01.089")
        (62.5, 1.089)
    """
    match = re.fullmatch(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d+)?)", text.strip())
    if not match:
        raise ValueError(f"expected a time such as 00:01:02.345, found {text!r}")
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])


def mirrored_labels(classes: Sequence[str]) -> dict[int, int]:
    """Which class a mirrored clip belongs to, for classes whose text tells left from right.

    Args:
        classes: Texts of the classes, by id.

    Returns:
        Class to class, both ways.

    Raises:
        ValueError: A class with left or right whose mirror image is no class.

    Example:
        >>> mirrored_labels(["Pulling from left to right", "Opening", "Pulling from right to left"])
        {0: 2, 2: 0}
    """
    ids = {text.lower(): i for i, text in enumerate(classes)}
    other = {"left": "right", "right": "left"}
    swaps = {}
    for text, label in ids.items():
        mirrored = re.sub(r"\b(left|right)\b", lambda match: other[match[0]], text)
        if mirrored != text:
            if mirrored not in ids:
                raise ValueError(f"the class {classes[label]!r} has no mirror image among the classes")
            swaps[label] = ids[mirrored]
    return swaps


def _folder(root: Path, split: str) -> Split:
    return Split(*scan_folder(root / split if split != "test" or (root / "test").is_dir() else root / "val"))


def _csv(root: Path, split: str) -> Split:
    return Split(read_csv(_or_val(root, split, "csv")))


def _frames(root: Path, split: str) -> Split:
    return Split(read_frame_list(_or_val(root, split, "txt"), root))


READERS: dict[str, Callable[[Path, str, int], Split]] = {
    "folder": lambda root, split, fold: _folder(root, split),
    "csv": lambda root, split, fold: _csv(root, split),
    "frames": lambda root, split, fold: _frames(root, split),
    "ssv1": lambda root, split, fold: read_ssv1(root, "train" if split == "train" else "val"),
    "ssv2": lambda root, split, fold: read_ssv2(root, "train" if split == "train" else "val"),
    "kinetics": lambda root, split, fold: read_kinetics(root, "train" if split == "train" else "val"),
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "diving48": lambda root, split, fold: read_diving48(root, split),
    "diving48-v1": lambda root, split, fold: read_diving48(root, split, version=1),
    "gym99": lambda root, split, fold: read_finegym(root, split, 99),
    "gym288": lambda root, split, fold: read_finegym(root, split, 288),
    "epic": lambda root, split, fold: read_epic(root, "train" if split == "train" else "val"),
}
"""Layout to its reader, `(root, split, fold)`."""


def _or_val(root: Path, split: str, suffix: str) -> Path:
    file = root / f"{split}.{suffix}"
    return file if split != "test" or file.is_file() else root / f"val.{suffix}"


def _long(split: str) -> str:
    return {"val": "validation"}.get(split, split)


def _fold(fold: int) -> int:
    if fold not in (1, 2, 3):
        raise ValueError(f"fold has to be 1, 2 or 3, not {fold}")
    return fold
