"""The world of scenes: a pure function, honest masks."""

import pytest
import torch

from saccade.worlds.scenes import TEXTURES, Scenes


def test_pure_function_of_seed_split_and_index() -> None:
    first, second = Scenes(3, "test", 50), Scenes(3, "test", 9)
    assert torch.equal(first[4].image, second[4].image)
    assert not torch.equal(first[4].image, Scenes(4, "test", 50)[4].image)
    assert not torch.equal(first[4].image, Scenes(3, "train", 50)[4].image)


def test_masks_hold_the_sprites() -> None:
    world = Scenes(0, "val", 40, objects=(2, 3))
    for i in range(40):
        scene = world[i]
        assert scene.image.shape == (3, 40, 40)
        assert scene.image.min() >= 0
        assert scene.image.max() <= 1
        assert scene.masks.sum(0).max() == 1  # sprites do not touch
        assert [int(k) for k in scene.masks.flatten(1).any(1).nonzero()] == scene.classes
        inside = scene.image[:, scene.masks.any(0)]
        assert inside.std() > scene.image[:, ~scene.masks.any(0)].std()  # texture against noise
    counts = torch.stack([world[i].labels for i in range(40)]).sum(0)
    assert (counts > 5).all()
    assert len(counts) == len(TEXTURES)


def test_stack_and_bounds() -> None:
    images, labels = Scenes(0, length=4).stack()
    assert images.shape == (4, 3, 40, 40)
    assert labels.shape == (4, 5)
    with pytest.raises(IndexError, match="picture 4 of 4"):
        Scenes(0, length=4)[4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "train, val, test"),
        ({"objects": (0, 3)}, "1 to 5 sprites"),
        ({"objects": (2, 6)}, "1 to 5 sprites"),
        ({"radius": (5.0, 20.0)}, "does not fit"),
        ({"length": 0}, "length 0"),
    ],
)
def test_bad_settings(unchecked: None, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(0, **settings)
