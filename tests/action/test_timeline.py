"""Clips that slide over a video, and their picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from saccade.action.timeline import PALETTE, Timeline, slide, timeline_picture, window_frames
from saccade.data.transforms import EvalTransform
from saccade.data.video import ArrayClip, VideoReader, decode_all
from saccade.nn.input_spec import InputSpec
from tests.data.media import video

SPEC = InputSpec(size=32, frames=4, stride=1)


class Brightness(nn.Module):
    """Dark or bright, by the mean of the clip."""

    def forward(self, video: Tensor) -> Tensor:
        mean = video.mean((1, 2, 3, 4))
        return torch.stack([-mean, mean], 1).mul(10).softmax(1)


class Numbers:
    """A video whose frames are all of the brightness of their number."""

    fps = 10.0

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, []

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Tensor) -> Tensor:
        self.asked.append([int(i) for i in indices])
        return indices.to(torch.uint8)[:, None, None, None].expand(-1, 3, 36, 40)


@given(
    count=st.integers(1, 90), window=st.floats(0.05, 12), step=st.none() | st.floats(0.05, 5), batch=st.integers(1, 5)
)
def test_clips_cover_the_video_and_end_with_it(count: int, window: float, step: float | None, batch: int) -> None:
    source = Numbers(count)
    found = slide(Brightness(), source, SPEC, window=window, step=step, batch=batch)
    assert found.start[0] == 0
    assert float(found.end[-1]) == pytest.approx(count / 10)
    assert (found.start.diff() > 0).all()
    lengths = found.end - found.start
    assert torch.allclose(lengths, lengths[:1].expand_as(lengths), atol=1e-4)
    assert len(found.probabilities) == len(found.start)
    for asked in source.asked[:-1]:
        assert len(asked) == len(set(asked))  # overlapping clips decode a frame once


def test_each_clip_says_what_it_says_alone(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 40, fps=10)
    with VideoReader(path) as source:
        found = slide(Brightness(), source, SPEC, window=0.8, step=0.5)
    frames = decode_all(path)
    for start, said in zip(found.start.tolist(), found.probabilities, strict=True):
        first = round(start * 10)
        # 4 frames at stride 1, at 30 frames a second, are the middle of 8 frames at 10 a second
        inside = torch.linspace(first + (8 - 4 / 3) / 2, first + (8 - 4 / 3) / 2 + 4 / 3 - 1, 4).long()
        assert torch.allclose(said, Brightness()(EvalTransform(SPEC)(frames[inside]))[0], atol=1e-6)


def test_a_change_is_seen_where_it_is(tmp_path: Path) -> None:
    frames = torch.cat([torch.zeros(20, 3, 36, 40), torch.full((20, 3, 36, 40), 255.0)]).byte()
    torch.save(frames, tmp_path / "a.pt")
    found = slide(
        Brightness(), ArrayClip(tmp_path / "a.pt", fps=10), InputSpec(size=32, frames=2), window=0.4, step=0.4
    )
    assert found.probabilities.argmax(1).tolist() == [0] * 5 + [1] * 5
    assert found.thumbnails.float().mean((1, 2, 3)).tolist() == [0] * 4 + [255] * 4


def test_default_window() -> None:
    assert window_frames(InputSpec(frames=16, stride=4), 30.0, None) == 64
    assert window_frames(InputSpec(frames=16), 25.0, None) == 50
    assert window_frames(SPEC, 10.0, 0.01) == 1


def timeline(probabilities: Tensor) -> Timeline:
    n = len(probabilities)
    start = torch.arange(n) * 1.0
    thumbnails = torch.randint(0, 255, (4, 3, 30, 40), dtype=torch.uint8)
    return Timeline(start, start + 1, probabilities, float(n), thumbnails)


def colour(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


def test_the_strip_shows_the_likeliest_class_in_its_time() -> None:
    said = torch.tensor([0, 0, 0, 1, 1, 2])
    probabilities = torch.nn.functional.one_hot(said, 4).float() * 0.96 + 0.01
    picture = timeline_picture(timeline(probabilities), ["zero", "one", "two", "three"], top_k=3, title="a.mp4")
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 1210
    # the strip is the highest row of pixels that has the full colours of three classes
    colours = [colour(PALETTE[i]) for i in range(3)]
    for row in picture:
        where = [np.flatnonzero((row == c).all(1)) for c in colours]
        if all(len(w) > 20 for w in where):
            break
    else:
        pytest.fail("no row of the picture shows all three classes")
    assert where[0].max() < where[1].min() < where[1].max() < where[2].min()
    widths = [w.max() - w.min() for w in where]
    assert widths[0] / widths[2] == pytest.approx(3, rel=0.05)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.05)


def test_pictures_of_one_clip_of_many_classes_and_of_tall_frames() -> None:
    one = timeline(torch.full((1, 30), 1 / 30))
    assert timeline_picture(one, [f"a class with a long name, {i}" for i in range(30)], top_k=12).shape[0] > 300
    tall = Timeline(one.start, one.end, one.probabilities, 1.0, torch.zeros(3, 3, 80, 20, dtype=torch.uint8))
    assert timeline_picture(tall, [str(i) for i in range(30)]).std() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slide(Brightness(), Numbers(9), SPEC, window=0.0), "window has to be longer than 0 seconds, not 0"),
        (lambda: slide(Brightness(), Numbers(9), SPEC, step=-1.0), "step has to be longer than 0 seconds, not -1"),
        (lambda: window_frames(SPEC, 30.0, float("nan")), "not nan"),
        (lambda: timeline_picture(timeline(torch.ones(2, 3)), ["a"]), "1 names for 3 classes"),
        (lambda: timeline_picture(timeline(torch.ones(2, 1)), ["a"], top_k=0), "at least 1, not 0"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
