import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.worlds.tracks import ORDERS, TrackWorld


@given(indices=st.lists(st.integers(0, 10_000), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_a_clip_is_a_function_of_its_index(indices: list[int]) -> None:
    world = TrackWorld()
    together = world.batch("train", indices)
    for place, index in enumerate(indices):
        alone = world.batch("train", [index])
        assert torch.equal(together.tokens[place], alone.tokens[0])
        assert torch.equal(together.cell[place], alone.cell[0])


@pytest.mark.parametrize("speed", [0.0, 0.64, 1.27])
def test_ground_truth_is_true(speed: float) -> None:
    clips = TrackWorld(speed).batch("test", range(300))
    grid = clips.tokens.unflatten(1, (6, 25))
    rows = torch.arange(300)
    assert torch.equal(clips.query, clips.cell[:, 0, 0])
    assert torch.equal(clips.label, clips.order[:, 0])
    assert (grid[..., 16] > 0).sum() == 300
    assert (grid[rows, 0, clips.query, 16] == 2).all()
    assert (clips.cell[:, :, 0].sort(1).values.diff(dim=1) > 0).all()  # distinct cells at the start
    who = torch.stack([grid[rows, t, clips.cell[:, 0, t], :8] for t in range(6)], 1)
    assert float(torch.nn.functional.cosine_similarity(who[:, :1], who, dim=-1).min()) > 0.6  # one identity throughout
    state = torch.stack([grid[rows, t, clips.cell[:, 0, t], 8:11].argmax(-1) for t in range(6)], 1)
    expected = torch.tensor(ORDERS)[clips.label].repeat_interleave(2, 1)
    assert float((state == expected).float().mean()) > 0.99  # noise may hide a state now and then
    moved = (clips.cell[:, :, 1:] != clips.cell[:, :, :-1]).float().mean()
    assert moved == 0 if speed == 0 else moved > 0.5


def test_the_marked_token_alone_gives_half_of_the_answers() -> None:
    """From the state it shows; the rest takes another frame of the same object."""
    clips = TrackWorld().batch("train", range(6000))
    first = clips.tokens[torch.arange(6000), clips.query, 8:11].argmax(-1)
    shares = np.bincount(first * 6 + clips.label, minlength=18).reshape(3, 6) / 6000
    assert 0.48 < shares.max(1).sum() < 0.54  # the best guess from it: one of two
    assert np.abs(np.bincount(clips.label) / 6000 - 1 / 6).max() < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": 26}, "objects"),
        ({"objects": 0}, "objects"),
        ({"frames": 4}, "multiple of 3"),
        ({"speed": -1.0}, "speed"),
    ],
)
def test_bad_worlds(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrackWorld(**options)
