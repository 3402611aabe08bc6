import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.transforms import (
    EvalTransform,
    GroupMultiScaleCrop,
    LabelAwareFlip,
    Normalize,
    ShortSideCrop,
    TrainTransform,
    UniformCrop,
    augmentation,
    crop_corners,
    crop_sizes,
    uniform_crop_corner,
)
from saccade.nn.input_spec import InputSpec
from tests.data.media import moving


@given(height=st.integers(8, 400), width=st.integers(8, 400), view=st.integers(0, 2))
def test_views_lie_inside_and_the_other_axis_is_centred(height: int, width: int, view: int) -> None:
    size = min(height, width)
    y, x = uniform_crop_corner(height, width, size, view)
    assert 0 <= y <= height - size
    assert 0 <= x <= width - size
    y, x = uniform_crop_corner(height, width, size - 2, view)
    assert (y if width >= height else x) == 1


def test_three_views_cover_a_wide_frame() -> None:
    frames = torch.arange(24).expand(2, 3, 8, 24).to(torch.uint8)
    views = UniformCrop(8, views=3)(frames)
    assert views[:, 0, 0, 0, 0].tolist() == [0, 8, 16]
    assert UniformCrop(8)(frames)[0, 0, 0, 0, 0] == 8


@given(height=st.integers(20, 300), width=st.integers(20, 300))
def test_multi_scale_crops_lie_inside(height: int, width: int) -> None:
    sizes = crop_sizes(height, width, 224, (1.0, 0.875, 0.75, 0.66), 1)
    assert len(sizes) == 10
    for crop_height, crop_width in sizes:
        corners = crop_corners(height, width, crop_height, crop_width)
        assert len(corners) == 13
        assert all(0 <= y <= height - crop_height and 0 <= x <= width - crop_width for y, x in corners)


def test_all_frames_of_a_clip_get_the_same_crop() -> None:
    frames = moving(1)[[0] * 5]
    for crop in (GroupMultiScaleCrop(32), ShortSideCrop(32, (40, 60)), GroupMultiScaleCrop(32, resize=(60, 80))):
        out = crop(frames)
        assert out.shape == (5, 3, 32, 32)
        assert torch.equal(out, out[:1].expand_as(out))


def test_random_crops_repeat_under_a_seed_and_differ_otherwise() -> None:
    frames, crop = moving(2), GroupMultiScaleCrop(24)
    drawn = []
    for seed in (1, 1, 2, 3, 4):
        torch.manual_seed(seed)
        drawn.append(crop(frames))
    assert torch.equal(drawn[0], drawn[1])
    assert any(not torch.equal(drawn[0], other) for other in drawn[2:])


def test_flip_knows_labels() -> None:
    frames = moving(2)
    flip = LabelAwareFlip(1.0, swap={0: 1, 1: 0}, never=(3,))
    for label, expected in ((0, 1), (1, 0), (2, 2)):
        mirrored, new = flip(frames, label)
        assert new == expected
        assert torch.equal(mirrored, frames.flip(3))
    kept, new = flip(frames, 3)
    assert new == 3
    assert torch.equal(kept, frames)
    assert torch.equal(LabelAwareFlip(0.0)(frames, 0)[0], frames)


def test_normalise_is_the_definition() -> None:
    frames = moving(4)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    expected = (frames.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    out = Normalize(tuple(mean.tolist()), tuple(std.tolist()))(frames)
    torch.testing.assert_close(out, expected.transpose(0, 1))


def test_train_and_eval_shapes() -> None:
    spec = InputSpec(size=32, frames=4)
    clip, label = TrainTransform(spec, LabelAwareFlip(0.5), resize=(60, 80))(moving(4), 2)
    assert (clip.shape, label) == ((3, 4, 32, 32), 2)
    assert EvalTransform(spec, views=3)(moving(4)).shape == (3, 3, 4, 32, 32)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: uniform_crop_corner(8, 8, 8, 3), "view has to be"),
        (lambda: uniform_crop_corner(8, 8, 9, 0), "does not fit"),
        (lambda: UniformCrop(8, views=2), "views has to be"),
        (lambda: UniformCrop(8, resize=4), "less than"),
        (lambda: ShortSideCrop(224, (200, 256)), "shorter side"),
        (lambda: LabelAwareFlip(1.5), "probability"),
    ],
)
def test_bad_input(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_autoaugment_treats_all_frames_alike() -> None:
    augment, frame = augmentation("autoaugment"), torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    changed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        frames = augment(frame.expand(4, -1, -1, -1).clone())
        assert frames.shape == (4, 3, 32, 32)
        assert frames.dtype == torch.uint8
        assert all(torch.equal(frames[0], other) for other in frames[1:])
        changed += not torch.equal(frames[0], frame)
    assert changed > 5
