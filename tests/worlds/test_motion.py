import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.worlds.draws import addresses, normal, uniform
from saccade.worlds.motion import CLASSES, MotionDataset, MotionWorld

WORLD = MotionWorld(noise=0.0, seed=3)


@given(indices=st.lists(st.integers(0, 10_000), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_a_clip_is_a_function_of_its_index(indices: list[int]) -> None:
    world = MotionWorld(noise=0.1)
    together = world.batch("train", indices)
    for place, index in enumerate(indices):
        alone = world.batch("train", [index])
        assert torch.equal(together.video[place], alone.video[0])
        assert together.label[place] == alone.label[0]


def test_splits_and_seeds_are_unrelated() -> None:
    one = MotionWorld(seed=0).batch("train", range(4)).video
    for other in (
        MotionWorld(seed=0).batch("test", range(4)).video,
        MotionWorld(seed=1).batch("train", range(4)).video,
    ):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.1


def test_backwards_is_the_opposite_class() -> None:
    keys = addresses(0, "train", range(16))
    label = np.arange(16) % 8
    angle = label * np.pi / 4
    velocity = 3.3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    start, radius = uniform(keys, "start", (2,)) * 32, np.full(16, 6.0)
    forward = WORLD.render(keys, label, start, velocity, radius)
    last = start + (WORLD.frames - 1) * velocity
    backward = WORLD.render(keys, (label + 4) % 8, last, -velocity, radius)
    same = (forward.video.flip(2) - backward.video).abs() < 1e-3
    assert same.float().mean() > 0.999  # a pixel on the rim may fall on either side by rounding


def test_one_frame_is_as_likely_under_every_class() -> None:
    """Frame t of a course is frame t of a course of another class from another start; and starts are uniform."""
    keys = addresses(0, "train", range(8))
    start, radius, ones = uniform(keys, "start", (2,)) * 32, np.full(8, 6.0), np.ones(8, dtype=np.int64)
    east, north = np.array([[4.0, 0.0]] * 8), np.array([[0.0, -4.0]] * 8)
    for t in range(WORLD.frames):
        a = WORLD.render(keys, 0 * ones, start, east, radius).video[:, :, t]
        b = WORLD.render(keys, 6 * ones, start + t * (east - north), north, radius).video[:, :, t]
        assert ((a - b).abs() < 1e-3).float().mean() > 0.999
    label, start, velocity, _ = MotionWorld().courses(addresses(0, "train", range(8000)))
    for t in (0, 3):
        place = (start + t * velocity) % 32
        for k in range(8):
            counts = np.histogram(place[label == k], bins=8, range=(0, 32))[0]
            expected = counts.sum() / 8
            assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-square, 7 degrees: p about 1e-4


def test_mean_frames_of_all_classes_are_alike() -> None:
    """A linear look at single frames finds nothing: class means differ by no more than chance."""
    clips = MotionWorld().batch("train", range(2000))
    frames = clips.video[:, 0, 2].flatten(1)
    between = torch.stack([frames[clips.label == k].mean(0) for k in range(8)]).var(0).mean()
    assert float(between) < 1.3 * float(frames.var(0).mean()) / 250


def test_ground_truth_is_true() -> None:
    clips = MotionWorld(noise=0.0, speed=(2.0, 2.0)).batch("train", range(400))
    right = clips.label == CLASSES.index("right")  # 2 whole pixels a frame
    video, mask = clips.video[right, 0], clips.mask[right]
    moved = video[:, 0].roll(2, dims=-1)
    inside = mask[:, 1] & mask[:, 0].roll(2, dims=-1)
    torch.testing.assert_close(video[:, 1][inside], moved[inside], atol=1e-3, rtol=1e-3)
    still = ~mask[:, 0] & ~mask[:, 1]
    assert torch.equal(video[:, 0][still], video[:, 1][still])
    flow = clips.flow()[right]
    assert torch.equal(flow[:, :, 0][mask], torch.full_like(flow[:, :, 0][mask], 2.0))
    area = clips.mask.float().sum((2, 3)).mean()
    assert abs(float(area / (torch.pi * clips.radius.square()).mean()) - 1) < 0.02


def test_disk_and_ground_have_the_same_statistics_unless_asked() -> None:
    clips = MotionWorld(noise=0.0).batch("train", range(500))
    disk, ground = clips.video[clips.mask[:, None]], clips.video[~clips.mask[:, None]]
    assert abs(float(disk.mean() - ground.mean())) < 0.05
    assert abs(float(disk.std() / ground.std()) - 1) < 0.1
    bright = MotionWorld(brightness=2.5, contrast=0.3, radius=(4.0, 6.0)).batch("train", range(100))
    assert bright.video[bright.mask[:, None]].mean() > 2.3


def test_numbers_are_what_they_claim() -> None:
    keys = addresses(7, "train", range(50))
    u, n = uniform(keys, "a", (1000,)), normal(keys, "b", (1000,))
    assert 0 <= u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01
    assert abs(u.var() - 1 / 12) < 0.002
    assert abs(n.mean()) < 0.02
    assert abs(n.var() - 1) < 0.02
    assert abs(np.corrcoef(u.ravel(), uniform(keys, "c", (1000,)).ravel())[0, 1]) < 0.02
    assert uniform(addresses(0, "train", [5]), "speed")[0] == uniform(addresses(0, "train", range(9)), "speed")[5]


def test_labels_are_balanced_and_batches_load() -> None:
    assert np.bincount(MotionWorld().courses(addresses(0, "test", range(4000)))[0], minlength=8).min() > 420
    loaded = next(iter(torch.utils.data.DataLoader(MotionDataset(MotionWorld(channels=3), size=8), batch_size=4)))
    assert loaded["video"].shape == (4, 3, 4, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4}, "size >= 8"),
        ({"speed": (2.0, 1.0)}, "speed goes from least"),
        ({"radius": (8.0, 17.0)}, "does not fit"),
        ({"noise": -1.0}, "noise >= 0"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MotionWorld(**arguments)
    with pytest.raises(ValueError, match="at least 1"):
        MotionDataset(MotionWorld(), size=0)
    with pytest.raises(IndexError, match="0 to 2"):
        MotionDataset(MotionWorld(), size=3)[3]
