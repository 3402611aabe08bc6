"""The search: area, restore, batching, rewards, channels, bad input."""

import copy

import pytest
import torch
from torch import Tensor, nn

from saccade.explain import (
    Ascent,
    ExtremalPerturbation,
    area_distance,
    channel_attribution,
    contrastive_reward,
    extremal_perturbation,
    keep_channels_accuracy,
    simple_reward,
)
from saccade.explain.plain import plain_area_distance
from tests.explain.models import with_modules


class Blob(nn.Module):
    """Class 0 answers to brightness in the upper left quarter, class 1 to the lower right."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x.mean(1))
        return self.scale * torch.stack([x[:, 4:12, 4:12].mean((1, 2)), x[:, 20:28, 20:28].mean((1, 2))], dim=1)


IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) + 0.5
QUICK = {"step": 4, "sigma": 4.0, "max_iter": 150, "perturbation": "fade", "jitter": False}


def test_the_mask_finds_what_the_model_sees() -> None:
    result = extremal_perturbation(Blob(), IMAGE, 1, areas=(0.05, 0.1, 0.3), **QUICK)
    assert result.masks.shape == (3, 1, 32, 32)
    assert result.history.shape == (3, 2, 150)
    inside = result.masks[1, 0, 18:30, 18:30].sum() / result.masks[1].sum()
    assert inside > 0.7
    y, x = divmod(int(result.saliency.argmax()), 32)
    assert 18 <= y < 30
    assert 18 <= x < 30
    assert min(result.scores[1:]) > result.scores[0]
    assert result.optimal_area in (0.05, 0.1, 0.3)
    assert result.perturbed_score < result.scores[0] < result.image_score + 1e-4


@pytest.mark.parametrize("area_on", ["full", "visible"])
def test_the_area_is_met(area_on: str) -> None:
    result = extremal_perturbation(Blob(), IMAGE, 0, areas=(0.1, 0.25), area_on=area_on, **QUICK)
    bound = 1.6 if area_on == "full" else 1.15
    for asked, seen in zip(result.areas, result.visible_areas, strict=True):
        assert 0.7 * asked < seen < bound * asked


def test_delete_and_dual_find_it_too() -> None:
    for variant in ("delete", "dual"):
        result = extremal_perturbation(Blob(), IMAGE, 1, areas=(0.1,), variant=variant, **QUICK)
        assert result.masks[0, 0, 18:30, 18:30].sum() / result.masks.sum() > 0.7, variant


def test_several_images_equal_one_by_one() -> None:
    images = torch.cat([IMAGE, IMAGE.flip(-1)])
    search = ExtremalPerturbation(Blob(), (0.1, 0.2), **{**QUICK, "max_iter": 30, "jitter": True})
    together = search.attribute_batch(images, [0, 1])
    for image, target, result in zip(images, (0, 1), together, strict=True):
        alone = search.attribute(image[None], target)
        assert torch.allclose(alone.masks, result.masks, atol=1e-5)
        assert torch.allclose(alone.history, result.history, atol=1e-4)
        assert alone.scores == pytest.approx(result.scores, abs=1e-5)


def test_plain_and_fast_agree_where_nothing_ties() -> None:
    model = with_modules()
    settings = {"areas": (0.2,), "step": 4, "sigma": 5.0, "max_iter": 6, "area_weight": 0.0}
    plain = extremal_perturbation(model, IMAGE, 2, plain=True, **settings)
    fast = extremal_perturbation(model, IMAGE, 2, **settings)
    assert torch.allclose(plain.masks, fast.masks, atol=1e-4)
    assert torch.allclose(plain.history, fast.history, atol=1e-4)


def test_model_is_left_as_it_was() -> None:
    model = Blob().train()
    model.scale.requires_grad_(False)
    extremal_perturbation(model, IMAGE, 0, **{**QUICK, "max_iter": 2})
    assert model.training
    assert model.dropout.training
    assert not model.scale.requires_grad
    model.scale.requires_grad_(True)
    with pytest.raises(ValueError, match="out of range"):
        extremal_perturbation(model, IMAGE, 7, **{**QUICK, "max_iter": 2})
    assert model.training
    assert model.scale.requires_grad
    assert model.scale.grad is None


def test_growth_follows_the_number_of_steps() -> None:
    assert Ascent(800).growth_per_step == pytest.approx(1.0035)
    assert Ascent(100).growth_per_step ** 100 == pytest.approx(1.0035**800)
    assert Ascent(100, growth=1.01).growth_per_step == 1.01
    few = {**QUICK, "max_iter": 60, "areas": (0.1,)}
    adapted = extremal_perturbation(Blob(), IMAGE, 0, **few).visible_areas[0]
    default = extremal_perturbation(Blob(), IMAGE, 0, growth=1.0035, **few).visible_areas[0]
    assert abs(adapted - 0.1) < abs(default - 0.1)


def test_float64_autocast_resize_and_own_reward() -> None:
    quick = {**QUICK, "max_iter": 4, "areas": (0.2,)}
    assert extremal_perturbation(Blob().double(), IMAGE.double(), 0, **quick).masks.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        result = extremal_perturbation(with_modules(), IMAGE, 0, **quick)
    assert result.masks.dtype == torch.float32
    resized = extremal_perturbation(Blob(), IMAGE, 0, resize=(10, 20), smooth=0.1, **quick)
    assert resized.masks.shape == (1, 1, 10, 20)
    seen: list[torch.Size] = []

    def reward(output: Tensor, target: Tensor, variant: str) -> Tensor:
        seen.append(output.shape)
        return simple_reward(output, target, variant)

    own = extremal_perturbation(Blob(), IMAGE, 0, reward=reward, **quick)
    assert torch.equal(own.masks, extremal_perturbation(Blob(), IMAGE, 0, **quick).masks)
    assert seen


def test_same_result_twice() -> None:
    quick = {**QUICK, "max_iter": 10}
    first, second = (extremal_perturbation(with_modules(), IMAGE, 1, **quick) for _ in range(2))
    assert torch.equal(first.masks, second.masks)


def test_area_distance_is_sorting() -> None:
    values = torch.rand(6, 500, requires_grad=True)
    areas = (0.05, 0.3, 1.0)
    ours, theirs = area_distance(values, areas), plain_area_distance(values, areas)
    assert torch.allclose(ours, theirs)
    weight = torch.rand(6)
    gradients = [torch.autograd.grad((d * weight).sum(), values)[0] for d in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-7)


def test_area_distance_with_ties_is_a_stable_sort() -> None:
    values = (torch.rand(3, 200) * 4).round() / 4
    values.requires_grad_()
    (ours,) = torch.autograd.grad(area_distance(values, (0.3,)).sum(), values)
    ordered = values.sort(dim=1, stable=True).values
    reference = (torch.arange(200) >= int(200 * 0.7)).float()
    (theirs,) = torch.autograd.grad((ordered - reference).square().mean(1).sum(), values)
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_contrastive_reward_does_not_mix_items() -> None:
    output = torch.randn(4, 6, 2, 3)
    target = torch.full((4,), 3)
    right = contrastive_reward(output, target, "preserve")
    for i in range(4):
        others = output[i, [k for k in range(6) if k != 3]].amax(0)
        assert torch.equal(right[i], output[i, 3] - others)
    mixed = contrastive_reward(output, target, "preserve", mix_items=True)
    assert mixed.shape == (4, 4, 2, 3)
    assert not torch.allclose(mixed[0], right[0].expand(4, -1, -1))


def test_nan_names_the_iteration() -> None:
    class Breaks(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x.mean((2, 3)) * (float("nan") if self.calls > 9 else 1)

    with pytest.raises(RuntimeError, match="NaN at iteration 7"):
        extremal_perturbation(Breaks(), IMAGE, 0, **{**QUICK, "max_iter": 40})


class Dictionary(nn.Module):
    def forward(self, x: Tensor) -> dict:
        return {"logits": x}


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: extremal_perturbation(Blob(), IMAGE[0], 0), ValueError, r"\(1, c, h, w\), got torch.float32 \(3, 32"),
        (lambda: extremal_perturbation(Blob(), IMAGE.expand(2, -1, -1, -1), 0), ValueError, r"\(2, 3, 32, 32\)"),
        (lambda: extremal_perturbation(Blob(), IMAGE.int(), 0), ValueError, "int32"),
        (lambda: extremal_perturbation(Blob(), IMAGE, 2), ValueError, "target 2 is out of range: .* 0 to 1"),
        (lambda: extremal_perturbation(Blob(), IMAGE, -1), ValueError, "target -1 is out of range"),
        (lambda: extremal_perturbation(Blob(), IMAGE, 1.5), TypeError, "class index"),
        (lambda: extremal_perturbation(Blob(), IMAGE, True), TypeError, "class index"),
        (lambda: ExtremalPerturbation(Blob(), ()), ValueError, "no areas"),
        (lambda: ExtremalPerturbation(Blob(), (0.1, 0.0)), ValueError, "area 0.0"),
        (lambda: ExtremalPerturbation(Blob(), (1.1,)), ValueError, "area 1.1"),
        (lambda: ExtremalPerturbation(Blob(), step=0), ValueError, "step is 0"),
        (lambda: ExtremalPerturbation(Blob(), sigma=0), ValueError, "sigma is 0"),
        (lambda: ExtremalPerturbation(Blob(), max_iter=0), ValueError, "max_iter is 0"),
        (lambda: ExtremalPerturbation(Blob(), variant="keep"), ValueError, "preserve, delete, dual"),
        (lambda: ExtremalPerturbation(Blob(), perturbation="noise"), ValueError, "blur, fade"),
        (lambda: ExtremalPerturbation(Blob(), reward="loss"), ValueError, "simple, contrastive"),
        (lambda: ExtremalPerturbation(Blob(), area_on="crop"), ValueError, "full, visible"),
        (lambda: ExtremalPerturbation(Blob(), num_levels=1), ValueError, "num_levels is 1"),
        (lambda: ExtremalPerturbation(Blob(), growth=0.0), ValueError, "growth"),
        (lambda: ExtremalPerturbation(lambda x: x), TypeError, "nn.Module"),
        (lambda: extremal_perturbation(Dictionary(), IMAGE, 0), ValueError, "gives a dict"),
        (lambda: extremal_perturbation(nn.Flatten(0), IMAGE, 0), ValueError, r"wanted float \(n, k\)"),
        (lambda: channel_attribution(with_modules(), "9", IMAGE, 0, [0.5]), ValueError, "no layer '9'"),
        (lambda: channel_attribution(with_modules(), "4", IMAGE, 9, [0.5]), ValueError, "out of range"),
        (lambda: channel_attribution(with_modules(), "4", IMAGE, 0, []), ValueError, "no areas"),
        (lambda: channel_attribution(with_modules(), "4", IMAGE, 0, [0.5], reward="x"), ValueError, "simple"),
    ],
)
def test_bad_input(unchecked: None, call, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_channels_that_matter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.abs_()
        model[4].weight.fill_(-0.3)
        model[4].weight[1, [2, 5]] = 3.0
    for variant in ("preserve", "delete", "dual"):
        result = channel_attribution(model, "1", IMAGE, 1, [2 / 8], variant=variant, lr=0.05, area_weight=0.05)
        assert set(result.top(2).tolist()) == {2, 5}, variant
        assert result.masks[0, [2, 5]].min() > 0.9
        assert result.masks[0, [0, 1, 3, 4, 6, 7]].max() < 0.1
    order = result.top(8)
    labels = model(IMAGE).argmax(1)
    accuracies = keep_channels_accuracy(model, "1", [(IMAGE, labels)], order, [0.25, 1.0])
    assert accuracies[1] == 1.0
    state = copy.deepcopy(model.state_dict())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
