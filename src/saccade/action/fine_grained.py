"""Diving-48 and FineGym: sets whose classes differ in what moves, not in where it happens."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from saccade.action.splits import Split, compare_size, first_there, read_json
from saccade.data.clips import ClipRecord, numbered_lines

DIVING48_SIZES = {1: {"train": 15_943, "val": 2_096}, 2: {"train": 15_027, "val": 1_970}}
GYM_SIZES = {99: {"train": 20_484, "val": 8_521}, 288: {"train": 22_671, "val": 9_646}}

_ELEMENT = re.compile(r"(?P<event>.+_E_(?P<start>\d+)_\d+)_A_(?P<first>\d+)_(?P<last>\d+)")


def read_diving48(root: Path, split: str, version: Literal[1, 2] = 2) -> Split:
    """Diving-48: `Diving48_V2_{train,test}.json`, `Diving48_vocab.json` and `rgb/NAME.mp4`.

    The videos are cut to one dive each, so `start_frame` and `end_frame` are checked but not used. The labels of
    version 2 (October 2020) correct those of version 1: figures on the two cannot be compared.

    Args:
        root: Folder of the lists and of the folder `rgb`.
        split: `train`, or `val` and `test` for the test list.
        version: 2, or 1 for `Diving48_{train,test}.json`.

    Returns:
        The split; a class is named by its take-off, somersaults, twists and position.

    Raises:
        FileNotFoundError: A list is missing.
        ValueError: A malformed list, or a label that the vocabulary lacks.
    """
    known = "train" if split == "train" else "val"
    part = "train" if split == "train" else "test"
    vocabulary, old = root / "Diving48_vocab.json", root / f"Diving48_{part}.json"
    file = old if version == 1 else root / f"Diving48_V2_{part}.json"
    if not file.is_file() and version == 2 and old.is_file():
        raise FileNotFoundError(f"no list at {file}; {old.name} has the labels of version 1 (layout 'diving48-v1')")
    classes = _vocabulary(first_there(vocabulary))
    entries = read_json(first_there(file))
    if not isinstance(entries, list):
        raise ValueError(f"{file}: expected a list of clips, found {type(entries).__name__}")
    lines = _entry_lines(file)
    records = []
    for number, entry in enumerate(entries):
        at = f"{file}, line {lines[number]}" if len(lines) == len(entries) else f"{file}, entry {number + 1}"
        if not isinstance(entry, dict) or not isinstance(entry.get("vid_name"), str) or not _is_number(entry, "label"):
            raise ValueError(f"{at}: expected an object with 'vid_name' and 'label', found {entry!r:.80}")
        if not 0 <= entry["label"] < len(classes):
            raise ValueError(f"{at}: the label {entry['label']} is none of the {len(classes)} of {vocabulary.name}")
        if "start_frame" in entry or "end_frame" in entry:
            both = _is_number(entry, "start_frame") and _is_number(entry, "end_frame")
            if not both or not 0 <= entry["start_frame"] < entry["end_frame"]:
                raise ValueError(f"{at}: expected a 'start_frame' before the 'end_frame', found {entry!r:.120}")
        records.append(ClipRecord(root / "rgb" / f"{entry['vid_name']}.mp4", entry["label"]))
    compare_size(f"Diving-48 V{version}", known, len(records), DIVING48_SIZES[version])
    return Split(records, classes)


def read_finegym(root: Path, split: str, classes: Literal[99, 288] = 99) -> Split:
    """FineGym: `gym{99,288}_{train,val}_element*.txt` and videos, whole or cut to events or actions.

    Videos are looked for in this order: `subactions/ELEMENT.mp4`, cut to actions; `events/EVENT.mp4`, cut to events, of
    which the action is a part; `videos/YOUTUBE_ID.mp4`, whole. Where a part has to be found, its times come from
    `finegym_annotation_info*.json`; elements it lacks fall back on the whole seconds in their names.

    Args:
        root: Folder of the lists, or of a folder `annotations` with them, and of one of those folders.
        split: `train`, or `val` and `test` for the validation list.
        classes: 99 or 288.

    Returns:
        The split; classes have names where `gym{99,288}_categories.txt` is there.

    Raises:
        FileNotFoundError: A list or the folder of videos is missing.
        ValueError: A malformed line, with file and number.
    """
    base = root / "annotations" if (root / "annotations").is_dir() else root
    part = "train" if split == "train" else "val"
    file = _newest(base, f"gym{classes}_{part}_element", ".txt")
    if file is None:
        raise FileNotFoundError(f"no list at {base / f'gym{classes}_{part}_element_v1.0.txt'}")
    kind = next((name for name in ("subactions", "events", "videos") if (root / name).is_dir()), None)
    if kind is None:
        raise FileNotFoundError(f"{root} has none of the folders subactions, events and videos")
    info = _newest(base, "finegym_annotation_info", ".json") if kind != "subactions" else None
    times = _json_object(info) if info is not None else {}
    records, guessed = [], 0
    for number, line in numbered_lines(file):
        element, _, label = line.rpartition(" ")
        match = _ELEMENT.fullmatch(element.strip())
        if not match or not label.isdigit() or int(label) >= classes:
            raise ValueError(
                f"{file}, line {number}: expected 'ID_E_start_end_A_start_end class' with a class below {classes}, "
                f"found {line!r:.100}"
            )
        seconds = None
        if kind != "subactions":
            event, seconds = _times(times, match, info)
            if seconds is None:
                guessed += 1
                event, seconds = float(match["start"]), (float(match["first"]), float(match["last"]))
            seconds = seconds if kind == "events" else (event + seconds[0], event + seconds[1])
        name = {"subactions": element.strip(), "events": match["event"], "videos": match["event"].rpartition("_E_")[0]}
        records.append(ClipRecord(root / kind / f"{name[kind]}.mp4", int(label), seconds=seconds))
    if guessed:
        warnings.warn(
            f"{guessed} of {len(records)} elements of {file.name} have no times in an annotation file: "
            "the whole seconds in their names are used",
            stacklevel=2,
        )
    compare_size(f"Gym{classes}", part, len(records), GYM_SIZES[classes])
    return Split(records, _categories(base / f"gym{classes}_categories.txt", classes))


def _vocabulary(file: Path) -> list[str]:
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file}: expected a list with one entry a class")
    return [", ".join(map(str, entry)) if isinstance(entry, list) else str(entry) for entry in entries]


def _entry_lines(file: Path) -> list[int]:
    """Where the entries begin, in a list of flat objects."""
    return [n for n, line in numbered_lines(file) for _ in range(line.count("{"))]


def _is_number(entry: Mapping[str, Any], key: str) -> bool:
    return isinstance(entry.get(key), int) and not isinstance(entry[key], bool)


def _newest(folder: Path, begin: str, end: str) -> Path | None:
    """Of the files whose names differ in their version, the newest."""
    return max(folder.glob(f"{begin}*{end}"), default=None, key=lambda path: path.name)


def _json_object(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected an object of videos, found {type(content).__name__}")
    return content


def _times(
    times: Mapping[str, Any], match: re.Match[str], info: Path | None
) -> tuple[float, tuple[float, float] | None]:
    """When the event begins in the video, and from when to when the action goes in the event."""
    video, _, event_id = match["event"].rpartition("_E_")
    action_id = f"A_{match['first']}_{match['last']}"
    try:
        event = times[video][f"E_{event_id}"]
        stages = event["segments"][action_id]["timestamps"]
    except (KeyError, TypeError):
        return 0.0, None
    try:
        begin, first, last = float(event["timestamps"][0][0]), float(stages[0][0]), float(stages[-1][1])
    except (KeyError, TypeError, IndexError, ValueError):
        begin, first, last = 0.0, 1.0, 0.0
    if not 0 <= first <= last:
        raise ValueError(f"{info}: {video}, E_{event_id}, {action_id}: expected timestamps [[start, end], ...]")
    return begin, (first, last)


def _categories(file: Path, count: int) -> list[str]:
    if not file.is_file():
        return []
    names: dict[int, str] = {}
    for number, line in numbered_lines(file):
        match = re.fullmatch(r"Clabel:\s*(\d+);(?:.*?;)?\s*([^;]+)", line)
        if not match or int(match[1]) >= count:
            raise ValueError(f"{file}, line {number}: expected 'Clabel: 0; set: 1; Glabel: 1; NAME', found {line!r}")
        names[int(match[1])] = match[2].strip()
    return [names.get(i, str(i)) for i in range(count)]
