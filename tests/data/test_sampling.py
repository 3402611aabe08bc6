from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from saccade.data import sampling

RULES: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "segment_random": lambda n, t, g: sampling.segment_random(n, t, g),
    "segment_center": lambda n, t, g: sampling.segment_center(n, t),
    "segment_twice": lambda n, t, g: sampling.segment_twice(n, t),
    "dense_random": lambda n, t, g: sampling.dense_random(n, t, g),
    "dense_views": lambda n, t, g: sampling.dense_views(n, t, 3),
    "interval_random": lambda n, t, g: sampling.interval_random(n, t, g),
    "interval_center": lambda n, t, g: sampling.interval_center(n, t),
    "clip_random": lambda n, t, g: sampling.clip_random(n, t, 4, 25.0, g),
    "clip_views": lambda n, t, g: sampling.clip_views(n, t, 4, 3),
    "uniform": lambda n, t, g: sampling.uniform(n, t),
}


@given(
    rule=st.sampled_from(sorted(RULES)), frames=st.integers(1, 400), count=st.integers(1, 32), seed=st.integers(0, 9)
)
def test_every_rule_stays_inside_and_repeats_under_a_seed(rule: str, frames: int, count: int, seed: int) -> None:
    draws = [RULES[rule](frames, count, torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].shape[-1] == count
    assert draws[0].dtype == torch.int64
    assert draws[0].min() >= 0
    assert draws[0].max() < frames
    if not rule.startswith("dense"):  # those wrap around
        assert (draws[0].diff(dim=-1) >= 0).all()


@given(frames=st.integers(16, 400), seed=st.integers(0, 99))
def test_random_segments_hit_every_segment(frames: int, seed: int) -> None:
    indices = sampling.segment_random(frames, 8, torch.Generator().manual_seed(seed))
    width = frames // 8
    assert torch.equal(indices // width, torch.arange(8))


def test_random_rules_reach_all_they_may() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([sampling.segment_random(16, 4, generator) for _ in range(200)])
    assert set(drawn.tolist()) == set(range(16))
    starts = {int(sampling.dense_random(70, 8, generator)[0]) for _ in range(200)}
    assert starts == set(range(6))  # max(1, 70 - 63) - 1 = 6 starts, as the authors draw them
    ends = {int(sampling.interval_random(17, 4, generator)[-1]) for _ in range(200)}
    assert ends == {12, 13, 14, 15, 16}
    assert (
        int(max(sampling.clip_random(100, 4, 8, generator=generator).max() for _ in range(300))) == 98
    )  # the last start is never drawn


def test_short_videos_follow_the_documented_policy() -> None:
    assert sampling.segment_random(3, 8).tolist() == [0] * 8
    assert sampling.segment_center(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert sampling.segment_center(3, 6, official=True).tolist() == [0] * 6
    assert sampling.dense_random(10, 8).tolist() == [0, 8, 6, 4, 2, 0, 8, 6]
    assert sampling.clip_views(4, 4, 2, views=2).tolist() == [[0, 2, 3, 3]] * 2
    assert sampling.interval_center(2, 4).tolist() == [0, 0, 0, 1]


def test_snippets_leave_room_for_their_length() -> None:
    generator = torch.Generator().manual_seed(0)
    starts = torch.stack([sampling.segment_random(20, 4, generator, length=5) for _ in range(100)])
    assert starts.max() <= 15


def test_frame_rate_scales_the_clip() -> None:
    slow, fast = (sampling.clip_views(600, 4, 8, views=1, fps=fps)[0] for fps in (30.0, 60.0))
    assert (slow[-1] - slow[0]).item() * 2 + 1 == (fast[-1] - fast[0]).item()
    centred = sampling.clip_views(101, 4, 8, views=1, reach_end=True)[0]
    assert abs(int(centred[0]) - (100 - int(centred[-1]))) <= 1


@pytest.mark.parametrize(("frames", "count"), [(0, 8), (8, 0), (-1, 1)])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_bad_input(rule: str, frames: int, count: int) -> None:
    with pytest.raises(ValueError, match="have to be positive"):
        RULES[rule](frames, count, torch.Generator())
