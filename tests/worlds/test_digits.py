"""Digits in other looks: each a function of its address, in range, and still the same digit."""

import pytest
import torch
from torch import Tensor

from saccade.data.images import load_digits
from saccade.worlds.digits import LOOKS, DigitLook, restyle

DIGITS = load_digits().images[:24]


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_a_function_of_its_address(name: str, channels: int) -> None:
    whole = restyle(DIGITS, LOOKS[name], channels=channels)
    assert whole.shape == (24, channels, 16, 16)
    assert 0 <= float(whole.min()) < float(whole.max()) <= 1
    alone = restyle(DIGITS[7:8], LOOKS[name], channels=channels, indices=[7])
    torch.testing.assert_close(alone[0], whole[7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["faded", "striped", "photo", "coloured", "turned"])
def test_seeds_and_splits_differ(name: str) -> None:
    made = [restyle(DIGITS, LOOKS[name], channels=3, seed=s, split=p) for s, p in ((0, "a"), (1, "a"), (0, "b"))]
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def ink(images: Tensor) -> Tensor:
    return images.flatten(1).mean(1)


def test_strokes_grow_and_shrink() -> None:
    thin, plain, bold = (ink(restyle(DIGITS, LOOKS[name])) for name in ("thin", "plain", "bold"))
    assert bool((thin < plain).all())
    assert bool((plain < bold).all())


def test_the_formulas_of_brightness() -> None:
    plain = restyle(DIGITS, DigitLook())
    torch.testing.assert_close(restyle(DIGITS, DigitLook(inverted=True)), 1 - plain)
    torch.testing.assert_close(restyle(DIGITS, DigitLook(contrast=0.4, brightness=0.15)), 0.15 + 0.4 * plain)
    noisy = restyle(DIGITS, LOOKS["faded"]) - 0.15 - 0.4 * plain
    assert float(noisy.min()) >= -1e-6
    assert float(noisy.max()) <= 0.45 + 1e-6


def test_a_larger_picture_is_reduced_by_area() -> None:
    large = DIGITS.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(restyle(large, DigitLook(), size=8)[:, 0], DIGITS / 255, atol=1e-6, rtol=0)


def test_ink_and_ground_of_coloured_digits_can_be_told_apart() -> None:
    coloured = restyle(DIGITS, LOOKS["coloured"], channels=3)
    spread = coloured.flatten(2).amax(2) - coloured.flatten(2).amin(2)
    assert float(spread.amax(1).min()) > 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contrast": 0.0}, "contrast 0.0"),
        ({"strength": 2.0}, "strength 2.0"),
        ({"brightness": 1.0}, "brightness 1.0"),
        ({"rotation": 200.0}, "rotation 200.0"),
        ({"shift": -1.0}, "shift -1.0"),
    ],
)
def test_looks_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitLook(**settings)


def test_too_small() -> None:
    with pytest.raises(ValueError, match="size is 4"):
        restyle(DIGITS, DigitLook(), size=4)
