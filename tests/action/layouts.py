"""Miniatures of data sets in their real on-disk layouts."""

import json
from pathlib import Path

from tests.data.media import jpegs, video

LABELS = ["Pushing [something] from left to right", "Pushing [something] from right to left", "Opening [something]"]
PLAIN = [label.replace("[", "").replace("]", "") for label in LABELS]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def ssv1(root: Path, media: bool = True) -> Path:
    (root / "20bn-something-something-v1").mkdir(parents=True)
    write(root / "something-something-v1-labels.csv", "\n".join(PLAIN) + "\n")
    for split, first in (("train", 1), ("validation", 11)):
        rows = [f"{first + i};{label}" for i, label in enumerate(PLAIN)]
        write(root / f"something-something-v1-{split}.csv", "\n".join(rows) + "\n")
        for i in range(3 if media else 0):
            jpegs(root / "20bn-something-something-v1" / str(first + i), 10, "{:05d}.jpg", seed=i)
    return root


def ssv2(root: Path, media: bool = True, new: bool = True) -> Path:
    (root / "20bn-something-something-v2").mkdir(parents=True)
    base, prefix = (root / "labels", "") if new else (root, "something-something-v2-")
    write(base / f"{prefix}labels.json", json.dumps({label: str(i) for i, label in enumerate(PLAIN)}))
    lists = {"train": [(str(i), i) for i in range(3)], "validation": [("11", 2)]}
    for split, clips in lists.items():
        entries = [
            {"id": clip, "label": "pushing a cup", "template": LABELS[label], "placeholders": ["a cup"]}
            for clip, label in clips
        ]
        write(base / f"{prefix}{split}.json", json.dumps(entries))
        for clip, label in clips if media else ():
            options = {"deadline": "realtime", "cpu-used": "8"}
            video(root / "20bn-something-something-v2" / f"{clip}.webm", 10, label, options=options)
    return root


def kinetics(root: Path, media: bool = True) -> Path:
    for split in ("train", "val") if media else ():
        for number, (label, clip) in enumerate((("abseiling", "a" * 11), ("air drumming", "b" * 11))):
            video(root / split / label / f"{clip}_000010_000020.mp4", 70, number)
    root.mkdir(parents=True, exist_ok=True)
    return root


def ucf101(root: Path, media: bool = True) -> Path:
    lists = root / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup\n2 Archery\n")
    train = ["Archery/v_Archery_g08_c01.avi", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"]
    test = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"]
    for fold in (1, 2, 3):
        rows = [f"{name} {2 if name.startswith('Archery') else 1}" for name in train]
        write(lists / f"trainlist0{fold}.txt", "\n".join(rows) + "\n")
        write(lists / f"testlist0{fold}.txt", "\n".join(test) + "\n")
    for name in (*train, *test) if media else ():
        video(root / "UCF-101" / name, 20)
    return root


def hmdb51(root: Path, media: bool = True) -> Path:
    for label in ("brush_hair", "wave"):
        for fold in (1, 2, 3):
            rows = "one.avi 1 \ntwo.avi " + ("2" if label == "wave" else "0") + " \n"
            write(root / "testTrainMulti_7030_splits" / f"{label}_test_split{fold}.txt", rows)
        for name in ("one.avi", "two.avi") if media else ():
            video(root / label / name, 20)
    return root


def diving48(root: Path, media: bool = True, version: int = 2) -> Path:
    dives = [["Back", "15som", "05Twis", "FREE"], ["Forward", "35som", "NoTwis", "PIKE"]]
    write(root / "Diving48_vocab.json", json.dumps(dives))
    (root / "rgb").mkdir(parents=True, exist_ok=True)
    for part, clips in (("train", [("-mIVSwkEMfo_00001", 0), ("98Hi6MPgHPM_00153", 1)]), ("test", [("a_b_00002", 1)])):
        entries = [{"vid_name": name, "label": label, "start_frame": 0, "end_frame": 20} for name, label in clips]
        prefix = "Diving48_V2_" if version == 2 else "Diving48_"
        write(root / f"{prefix}{part}.json", json.dumps(entries, indent=1))
        for name, label in clips if media else ():
            video(root / "rgb" / f"{name}.mp4", 20, label)
    return root


GYM_ELEMENTS = {
    "train": [("0LtLS9wROrk_E_002407_002435_A_0003_0005", 3), ("0LtLS9wROrk_E_002407_002435_A_0001_0002", 0)],
    "val": [("_A_E_y-zABC_E_000000_000004_A_0000_0002", 1)],
}


def finegym(root: Path, media: bool = True, kind: str = "events", classes: int = 99) -> Path:
    lists = root / "annotations"
    for part, elements in GYM_ELEMENTS.items():
        name = f"gym{classes}_{part}_element{'_v1.1' if part == 'train' else ''}.txt"
        write(lists / name, "".join(f"{element} {label}\n" for element, label in elements))
    write(lists / f"gym{classes}_categories.txt", "Clabel: 0; set: 1; Glabel: 1; (VT) tucked, 0.5 turn\n")
    segment = {"A_0003_0005": {"stages": 3, "timestamps": [[3.2, 3.5], [3.5, 4.0], [4.0, 4.6]]}}
    segment["A_0001_0002"] = {"stages": 1, "timestamps": [[1.0, 2.0]]}
    event = {"E_002407_002435": {"event": 1, "timestamps": [[2407.5, 2435.0]], "segments": segment}}
    write(lists / "finegym_annotation_info_v1.1.json", json.dumps({"0LtLS9wROrk": event}))
    (root / kind).mkdir(parents=True, exist_ok=True)
    for element, label in [e for elements in GYM_ELEMENTS.values() for e in elements] if media else ():
        name = element if kind == "subactions" else element.rpartition("_A_")[0]
        video(root / kind / f"{name}.mp4", 30, label, fps=5)
    return root


EPIC_COLUMNS = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)


def epic(root: Path, media: bool = True) -> Path:
    rows = {
        "train": [
            ("P01_01_0", "P01_01", "00:00:00.14", "00:00:00.37", 8, 22, 3, 10),
            ("P01_01_1", "P01_01", "00:00:00.30", "00:00:00.50", 18, 30, 0, 299),
            ("P02_101_0", "P02_101", "00:00:00.010", "00:00:00.250", 1, 12, 96, 0),
        ],
        "validation": [("P02_101_1", "P02_101", "00:00:00.040", "00:00:00.240", 3, 13, 1, 2)],
    }
    for split, segments in rows.items():
        lines = [
            f"{name},{video[:3]},{video},{start},{start},{stop},{first},{last},"
            f'"take a cup, plate",take,{verb},cup,{noun},'
            f"\"['cup', 'plate']\",\"[{noun}, 5]\""
            for name, video, start, stop, first, last, verb, noun in segments
        ]
        write(root / f"EPIC_100_{split}.csv", "\n".join([EPIC_COLUMNS, *lines]) + "\n")
    for number, name in enumerate(("P01_01", "P02_101") if media else ()):
        jpegs(root / name[:3] / "rgb_frames" / name, 30, "frame_{:010d}.jpg", seed=number)
    return root


LAYOUTS = {"ssv1": ssv1, "ssv2": ssv2, "kinetics": kinetics, "ucf101": ucf101, "hmdb51": hmdb51}
