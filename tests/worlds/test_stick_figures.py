import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.worlds.stick_figures import ATTACHED, LENGTHS, StickFigures, limb_ends

PLAIN = StickFigures(noise=0.0, shift=0.0, scale=(1.0, 1.0), contrast=(1.0, 1.0), size=64)


@given(indices=st.lists(st.integers(0, 10_000), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_a_figure_is_a_function_of_its_index(indices: list[int]) -> None:
    world = StickFigures(seed=3)
    together = world.batch("train", indices)
    for place, index in enumerate(indices):
        alone = world.batch("train", [index])
        assert torch.equal(together.images[place], alone.images[0])
        assert torch.equal(together.pose[place], alone.pose[0])


def test_splits_and_seeds_are_unrelated() -> None:
    one = StickFigures().batch("train", range(300)).angles
    for other in (StickFigures().batch("test", range(300)), StickFigures(seed=1).batch("train", range(300))):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.angles.flatten()]))[0, 1])) < 0.1


def test_the_label_is_the_pose_and_nothing_else() -> None:
    figures, other = (
        StickFigures(shift=s, noise=s, scale=(1.0, 1.0 + s)).batch("train", range(20)) for s in (0.0, 0.2)
    )
    assert torch.equal(figures.pose, other.pose)
    assert not torch.equal(figures.images, other.images)
    ends = figures.pose.reshape(20, 4, 2).numpy()
    assert np.allclose(np.linalg.norm(ends - ATTACHED, axis=-1), LENGTHS, atol=1e-6)
    distances = figures.label_distances()
    assert torch.allclose(distances[3, 5], (figures.pose[3] - figures.pose[5]).norm())
    assert distances.diagonal().eq(0).all()


def test_the_picture_shows_the_pose() -> None:
    """Bright at the ends of all limbs, dark a little beyond them."""
    figures = PLAIN.batch("train", range(50))
    ends = limb_ends(figures.angles.numpy().astype(np.float64))
    beyond = ATTACHED + (ends - ATTACHED) * 1.35
    y, x = (((ends[..., axis] + 1) * 32 - 0.5).round().astype(int) for axis in (1, 0))
    images = figures.images[:, 0].numpy()
    sample = np.arange(50)[:, None]
    assert (images[sample, y, x] > 0.6).all()
    v, u = (((beyond[..., axis] + 1) * 32 - 0.5).round().astype(int) for axis in (1, 0))
    assert (images[sample, v, u] < 0.2).mean() > 0.85  # another limb may be there


def test_a_shifted_figure_is_the_same_figure_elsewhere() -> None:
    figures = StickFigures(noise=0.0, shift=0.15, scale=(1.0, 1.0), size=64).batch("val", range(30))
    plain = StickFigures(noise=0.0, shift=0.0, scale=(1.0, 1.0), size=64).batch("val", range(30))
    place = (torch.arange(64) + 0.5) / 32 - 1

    def centre(images: torch.Tensor) -> torch.Tensor:
        mass = images[:, 0] / images.sum(dim=(1, 2, 3))[:, None, None]
        return torch.stack([(mass.sum(1) * place).sum(1), (mass.sum(2) * place).sum(1)], dim=1)

    assert torch.allclose(centre(figures.images) - centre(plain.images), figures.shift, atol=0.01)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 4}, "size >= 8"),
        ({"noise": -1.0}, "noise >= 0"),
        ({"swing": 4.0}, "swing from 0 to pi"),
        ({"scale": (1.2, 0.8)}, "scale goes from least to greatest"),
        ({"contrast": (0.0, 1.0)}, "contrast goes from least"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StickFigures(**settings)
