import re
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.data.video import ArrayClip, FrameFolder, VideoError, VideoReader, decode_all
from tests.data.media import empty, jpegs, moving, truncated, video

SAMPLES = (
    "demo_demo.mp4",
    "demo_demo_skeleton.mp4",
    "demo_test_video_structuralize.mp4",
    "tests_data_rawvideo_dataset_part_0.mp4",
    "tests_data_test.avi",
    "tests_data_test.mp4",
)


def agree(path: Path, queries: int = 6) -> None:
    """Any frames in any order are those of whole decoding, also from one open file."""
    whole = decode_all(path)
    n = len(whole)
    generator = torch.Generator().manual_seed(n)
    with VideoReader(path) as reader:
        assert (len(reader), reader.height, reader.width) == (n, *whole.shape[2:])
        for indices in ([n - 1], [0], torch.linspace(0, n - 1, 8).long().tolist(), [n // 2, n // 2 + 1, 0, n // 2]):
            assert torch.equal(reader.read(indices), whole[indices]), indices
        for _ in range(queries):
            indices = torch.randint(n, (3,), generator=generator)
            assert torch.equal(reader.read(indices), whole[indices]), indices


@pytest.mark.parametrize("name", SAMPLES)
def test_real_clips_frame_by_frame(data_root: Path, name: str) -> None:
    path = data_root / "video-samples" / name
    if not path.exists():
        pytest.skip(f"no clip at {path}")
    agree(path, queries=2 if "skeleton" in name else 6)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("plain.mp4", "libx264", {}),
        ("short-groups.mp4", "libx264", {"g": "12"}),
        ("open-groups.mp4", "libx264", {"g": "15", "x264-params": "open-gop=1:bframes=3"}),
        ("vp9.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "20"}),
        ("hidden-frames.webm", "libvpx", {"deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "12"}),
        ("b-frames.avi", "mpeg4", {"bf": "2"}),
        ("x264.mkv", "libx264", {"g": "10"}),
        ("transport.ts", "libx264", {"g": "10"}),
    ],
)
def test_containers_and_codecs_frame_by_frame(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    from saccade.data.video import write_video

    write_video(tmp_path / name, moving(60), codec=codec, options=options)
    agree(tmp_path / name)


def test_all_frames_in_reverse(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", frames=30, options={"g": "7"})
    with VideoReader(path) as reader:
        assert torch.equal(reader.read(range(29, -1, -1)), decode_all(path).flip(0))
        assert reader.fps == 30


def test_frames_outside_are_refused(tmp_path: Path) -> None:
    with VideoReader(video(tmp_path / "clip.mp4")) as reader:
        for index in (12, -1):
            with pytest.raises(IndexError, match=f"frames 0 to 11, not {index}"):
                reader.read([0, index])


@pytest.mark.parametrize("front", [True, False])
def test_truncated(tmp_path: Path, front: bool) -> None:
    path = truncated(tmp_path / "clip.mp4", front=front)
    with pytest.raises(VideoError, match=r"clip\.mp4 is (truncated|not a readable video)"):
        VideoReader(path)


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"clip\.mp4 (holds no frames|has no video stream|is not a readable video)"):
        VideoReader(empty(tmp_path / "clip.mp4"))


def test_no_video(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"not a video at all" * 100)
    (tmp_path / "void.mp4").write_bytes(b"")
    for name in ("clip.mp4", "void.mp4"):
        with pytest.raises(VideoError, match=f"{re.escape(name)} is not a readable video"):
            VideoReader(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no video at"):
        VideoReader(tmp_path / "gone.mp4")


def test_bytes_destroyed_in_the_middle_never_give_wrong_numbers_of_frames(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", frames=40)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    try:
        with VideoReader(path) as reader:
            shape = reader.read(range(len(reader))).shape
    except VideoError:
        return  # what the decoder cannot conceal is an error
    assert shape == (len(reader), 3, 48, 64)


def test_folder_of_frames(tmp_path: Path) -> None:
    source = FrameFolder(jpegs(tmp_path / "clip", frames=5))
    assert len(source) == 5
    frames = source.read([4, 0, 4])
    assert frames.shape == (3, 3, 48, 64)
    assert torch.equal(frames[0], frames[2])
    assert (frames[1].float() - moving(5)[0].float()).abs().mean() < 8
    (tmp_path / "clip" / "img_00002.jpg").write_bytes(b"broken")
    with pytest.raises(VideoError, match=r"img_00002\.jpg cannot be read"):
        source.read([1])
    with pytest.raises(VideoError, match=r"img_00009\.jpg cannot be read"):
        FrameFolder(tmp_path / "clip", count=9).read([8])
    (tmp_path / "void").mkdir()
    with pytest.raises(VideoError, match="holds no frames"):
        FrameFolder(tmp_path / "void")


def test_arrays(tmp_path: Path) -> None:
    frames = moving(4)
    np.save(tmp_path / "clip.npy", frames.permute(0, 2, 3, 1).numpy())
    torch.save(frames, tmp_path / "clip.pt")
    for name in ("clip.npy", "clip.pt"):
        source = ArrayClip(tmp_path / name)
        assert torch.equal(source.read([2, 0]), frames[[2, 0]])
    np.save(tmp_path / "float.npy", frames.float().numpy())
    (tmp_path / "broken.pt").write_bytes(b"broken")
    np.save(tmp_path / "void.npy", np.zeros((0, 8, 8, 3), np.uint8))
    for name, message in (("float.npy", "uint8"), ("broken.pt", "cannot be read"), ("void.npy", "no frames")):
        with pytest.raises(VideoError, match=message):
            ArrayClip(tmp_path / name)
