"""Clips in tar shards: what is written is read, by every worker its own, in an order that a seed gives."""

import builtins
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.data.clips import ClipDataset, ClipRecord, ClipSampler, collate_clips, open_clip
from saccade.data.shard_files import count_clips, expand_shards, read_index, write_shards
from saccade.data.shards import PLACES, ShardClips, ShardLoader
from saccade.data.video import VideoError
from tests.data.media import jpegs, moving, video

pytest.importorskip("webdataset")

SAMPLER = ClipSampler("segment", 2)


def small(frames: Tensor) -> Tensor:
    return frames[:, :, ::8, ::8].transpose(0, 1)[None].float()


def train(frames: Tensor, label: object) -> tuple[Tensor, object]:
    return small(frames)[0] + torch.rand(()), label


def arrays(folder: Path, count: int) -> list[ClipRecord]:
    """Clips that cost nothing to decode."""
    folder.mkdir(parents=True)
    records = [ClipRecord(folder / f"{i}.pt", i) for i in range(count)]
    for record in records:
        torch.save(torch.full((2, 3, 8, 8), record.label, dtype=torch.uint8), record.path)
    return records


@pytest.fixture
def twelve(tmp_path: Path) -> list[str]:
    """Twelve clips in six shards."""
    write_shards(arrays(tmp_path / "clips", 12), tmp_path / "shards", most_clips=2)
    return expand_shards(tmp_path / "shards")


def stream(shards: list[str], workers: int = 0, epochs: int = 1, **options: object) -> list[dict]:
    clips = ShardClips(shards, SAMPLER, train, train=True, **{"samples": 12, "batch_size": 2, **options})
    loader = ShardLoader(clips, workers, collate_clips)
    return [batch for _ in range(epochs) for batch in loader]


def labels(batches: list[dict]) -> list[int]:
    return [label for batch in batches for label in batch["label"].tolist()]


def test_every_kind_of_record_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.save(moving(9), tmp_path / "array.pt")
    records = [
        ClipRecord(video(tmp_path / "a.mp4", 20), 3),
        ClipRecord(video(tmp_path / "b.avi", 12), 1),
        ClipRecord(jpegs(tmp_path / "frames", 11), 2, fps=10.0),
        ClipRecord(tmp_path / "array.pt", 0),
        ClipRecord(video(tmp_path / "c.mp4", 30, fps=10), 5, seconds=(1.0, 2.0)),
    ]
    index = write_shards(records, tmp_path / "shards", classes=["x"], mirrored={0: 1}, seed=None)
    assert index.shards == {"shard-000000.tar": 5}
    assert read_index(tmp_path / "shards" / "shards.json") == index
    shards = expand_shards(tmp_path / "shards")
    read = list(ShardClips(shards, SAMPLER, small, train=False))
    plain = ClipDataset(records, SAMPLER, small, train=False)
    assert [sample["index"] for sample in read] == list(range(5))
    for place, sample in enumerate(read):
        assert torch.equal(sample["video"], plain[place]["video"])
        assert sample["label"] == records[place].label
    assert len(open_clip(records[4])) == 10


def test_the_same_records_give_the_same_bytes_in_an_order_of_a_seed(tmp_path: Path) -> None:
    records = arrays(tmp_path / "clips", 7)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shards(records, tmp_path / name, most_clips=4, seed=seed)
    contents = [[path.read_bytes() for path in sorted((tmp_path / name).glob("*.tar"))] for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    assert [len(c) for c in contents] == [2, 2, 2]
    assert count_clips(str(tmp_path / "a" / "shard-000001.tar")) == 3
    write_shards(records, tmp_path / "d", most_bytes=1)
    assert len(expand_shards(tmp_path / "d")) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_each_clip_comes_once_an_epoch_and_the_order_is_that_of_the_seed(twelve: list[str], workers: int) -> None:
    first, again = (stream(twelve, workers, epochs=2, buffer=3) for _ in range(2))
    assert len(first) == 12
    assert all(torch.equal(a["video"], b["video"]) for a, b in zip(first, again, strict=True))
    epochs = labels(first[:6]), labels(first[6:])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    assert labels(stream(twelve, workers, buffer=3, seed=1)) != epochs[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 4])
def test_a_resumed_epoch_goes_on_where_it_stopped(twelve: list[str], workers: int, start: int) -> None:
    Path(twelve[2]).write_bytes(Path(twelve[2]).read_bytes()[:700])
    whole = stream(twelve, workers, epochs=3, buffer=3)
    resumed = stream(twelve, workers, epoch=1, start=start, buffer=3)
    assert len(resumed) == 6 - start
    for a, b in zip(whole[6 + start : 12], resumed, strict=True):
        assert torch.equal(a["video"], b["video"])


def test_processes_share_the_shards_and_see_as_many_batches(twelve: list[str]) -> None:
    seen = []
    for rank in range(2):
        clips = ShardClips(twelve, SAMPLER, train, train=True, samples=12, batch_size=1)
        clips.rank, clips.world, clips.steps = rank, 2, 6
        seen.append(labels(list(ShardLoader(clips, 0, collate_clips))))
    assert len(seen[0]) == len(seen[1]) == 6
    assert sorted(seen[0] + seen[1]) == list(range(12))


def test_uneven_shards_still_give_every_process_as_many_batches(tmp_path: Path) -> None:
    write_shards(arrays(tmp_path / "clips", 5), tmp_path / "shards", most_clips=4, seed=None)
    counts = []
    for rank in range(2):
        clips = ShardClips(expand_shards(tmp_path / "shards"), SAMPLER, train, train=True, samples=5, batch_size=1)
        clips.rank, clips.world, clips.steps = rank, 2, 2
        counts.append(len(list(ShardLoader(clips, 0, collate_clips))))
    assert counts == [2, 2]


@pytest.mark.parametrize("workers", [0, 2, 8])
def test_evaluation_sees_each_clip_once(twelve: list[str], workers: int) -> None:
    clips = ShardClips(twelve, SAMPLER, small, train=False)
    batches = list(torch.utils.data.DataLoader(clips, 5, num_workers=workers, collate_fn=collate_clips))
    assert sorted(labels(batches)) == list(range(12))
    places = sorted(i for batch in batches for i in batch["index"].tolist())
    assert places == [shard * PLACES + i for shard in range(6) for i in range(2)]


def tar(path: Path, members: dict[str, bytes]) -> str:
    import io

    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture
def damaged(tmp_path: Path) -> list[str]:
    """Good and bad members, and a shard that is cut off in its second clip."""
    good = arrays(tmp_path / "clips", 4)
    content = [record.path.read_bytes() for record in good]
    one = {
        "a.cls": b"0",
        "a.pt": content[0],
        "b.cls": b"7",
        "b.mp4": b"no video",
        "c.pt": content[1],
        "d.cls": b"1",
        "e.json": b'{"label": "cat"}',
        "e.pt": content[1],
        "f.json": b'{"label": 1, "seconds": "soon"}',
        "f.pt": content[1],
        "g.json": b'{"label": 1}',
        "g.000001.jpg": b"no image",
        "h.json": b'{"label": 1}',
        "h.pt": content[1],
    }
    first = tar(tmp_path / "one.tar", one)
    second = tar(tmp_path / "two.tar", {"a.cls": b"2", "a.pt": content[2], "b.cls": b"3", "b.pt": content[3]})
    whole = Path(second).read_bytes()
    Path(second).write_bytes(whole[: 512 * 2 + 512 + len(content[2]) + 2500])
    return [first, second]


def test_what_cannot_be_read_is_skipped_and_named(damaged: list[str]) -> None:
    batch = collate_clips(list(ShardClips(damaged, SAMPLER, small, train=False)))
    assert batch["label"].tolist() == [0, 1, 2]
    names = [Path(path).name for path in batch["skipped"]]
    assert [name for name in names if name.startswith("one")] == [f"one.tar:{key}" for key in "bcdefg"]
    assert names[-1].startswith("two.tar")


def test_in_training_the_next_clip_takes_the_place(damaged: list[str]) -> None:
    batches = stream(damaged, samples=40, batch_size=4, buffer=1)
    assert len(batches) == 10
    assert set(labels(batches)) <= {0, 1, 2}
    assert Counter(labels(batches))[1] > 15  # six of the seven before it leave their places to it
    assert len({path for batch in batches for path in batch["skipped"]}) >= 7


@pytest.mark.parametrize("mode", [True, False])
def test_strict_mode_raises(damaged: list[str], mode: bool) -> None:
    clips = ShardClips(damaged[:1], SAMPLER, train if mode else small, train=mode, samples=9, buffer=1, strict=True)
    with pytest.raises(VideoError, match=r"one\.tar:b\.mp4 is not a readable video"):
        list(clips)
    with pytest.raises(VideoError, match=r"two\.tar is damaged"):
        list(ShardClips(damaged[1:], SAMPLER, small, train=False, strict=True))


def test_nothing_readable_ends_with_the_reason(tmp_path: Path) -> None:
    shard = tar(tmp_path / "a.tar", {"a.cls": b"0", "a.mp4": b"no video"})
    with pytest.raises(VideoError, match=r"no clip of the shards can be read; the first is .*a\.tar:a"):
        stream([shard])
    with pytest.raises(VideoError, match=r"the shards hold no clips, such as .*b\.tar"):
        stream([tar(tmp_path / "b.tar", {})])


def test_patterns(tmp_path: Path) -> None:
    for name in ("one/shard-000000.tar", "one/shard-000001.tar", "two/shard-000000.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = expand_shards(str(tmp_path / "{one,two}" / "shard-000000.tar"))
    assert [Path(path).parent.name for path in found] == ["one", "two"]
    assert len(expand_shards(str(tmp_path / "one" / "shard-{000000..000001}.tar"))) == 2
    with pytest.raises(FileNotFoundError, match=r"122 of 124 shards are not there, such as .*shard-000002\.tar"):
        expand_shards(str(tmp_path / "one" / "shard-{000000..000123}.tar"))
    urls = expand_shards("https://example.org/shard-{000000..000009}.tar")
    assert urls[9] == "https://example.org/shard-000009.tar"


def test_shards_come_through_what_webdataset_opens(twelve: list[str]) -> None:
    piped = [f"pipe:cat {shard}" for shard in twelve]
    plain, through = (list(ShardClips(shards, SAMPLER, small, train=False)) for shards in (twelve, piped))
    assert all(torch.equal(a["video"], b["video"]) for a, b in zip(plain, through, strict=True))
    gone = collate_clips(list(ShardClips([*piped[:1], "nowhere.tar"], SAMPLER, small, train=False)))
    assert (len(gone["label"]), gone["skipped"]) == (2, ["nowhere.tar"])


def test_missing_records_are_counted(tmp_path: Path) -> None:
    records = [*arrays(tmp_path / "clips", 2), ClipRecord(tmp_path / "gone.mp4", 0)]
    with pytest.warns(UserWarning, match=r"1 of 3 clips are not there, such as .*gone\.mp4"):
        index = write_shards(records, tmp_path / "shards")
    assert index.shards == {"shard-000000.tar": 2}
    with pytest.raises(FileNotFoundError, match="none of the 1 clips is there"):
        write_shards(records[2:], tmp_path / "none")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda tmp, shards: write_shards([ClipRecord(tmp)], tmp, most_clips=0), ValueError, "have to be positive"),
        (lambda tmp, shards: write_shards([ClipRecord(tmp)], tmp / "shards"), FileExistsError, "holds shards already"),
        (lambda tmp, shards: expand_shards(tmp), FileNotFoundError, r"no shards such as .*shard-000000\.tar"),
        (lambda tmp, shards: read_index(tmp / "shards.json"), ValueError, r"shards\.json is not an index"),
        (lambda tmp, shards: ShardClips([], SAMPLER, small, train=False), ValueError, "empty"),
        (lambda tmp, shards: stream(shards, samples=1), ValueError, "1 clips do not make one batch of 2"),
        (lambda tmp, shards: stream(shards, buffer=0), ValueError, "have to be positive"),
        (lambda tmp, shards: stream(shards[:1], workers=2), ValueError, "1 shards cannot feed 1 processes with 2"),
    ],
)
def test_bad_input(tmp_path: Path, twelve: list[str], call: object, error: type[Exception], message: str) -> None:
    (tmp_path / "shards.json").write_text(json.dumps({"shards": [1]}))
    with pytest.raises(error, match=message):
        call(tmp_path, twelve)


def test_without_webdataset_the_extra_is_named(twelve: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name == "webdataset":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"install saccade\[stream\]"):
        ShardClips(twelve, SAMPLER, small, train=False)
