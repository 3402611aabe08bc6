"""Measures without annotation, drawing, peaks, feature inversion, the world and the claim."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.claims import Cell
from saccade.explain import feature_inversion, peak
from saccade.explain.claims import EXTREMAL_PERTURBATION
from saccade.explain.draw import colours, overlay, sheet, unit
from saccade.explain.maps import class_activation_map, finish
from saccade.explain.metrics import best_pixels, deletion_insertion, preserved_score
from tests.explain.models import with_modules
from tests.explain.test_extremal_perturbation import IMAGE, Blob

GOOD = torch.zeros(1, 1, 32, 32)
GOOD[..., 20:28, 20:28] = 1
BAD = GOOD.flip(-1, -2)


def test_a_better_map_scores_better() -> None:
    model = Blob()
    kept = [float(preserved_score(model, IMAGE, 1, m, 64 / 1024, perturbation="fade")) for m in (GOOD, BAD)]
    assert kept[0] == pytest.approx(float(model.eval()(IMAGE)[0, 1]), abs=1e-5)
    assert kept[1] == pytest.approx(0, abs=1e-5)
    insertion = [
        float(deletion_insertion(model, IMAGE, 1, m, "insertion", perturbation="fade").area) for m in (GOOD, BAD)
    ]
    deletion = [float(deletion_insertion(model, IMAGE, 1, m, "deletion", steps=20).area) for m in (GOOD, BAD)]
    assert insertion[0] > insertion[1] + 0.1
    assert deletion[0] < deletion[1] - 0.1
    curves = deletion_insertion(model, IMAGE, 1, GOOD, "deletion", steps=10)
    assert curves.probabilities.shape == (1, 11)
    assert curves.probabilities[0, 0] == pytest.approx(float(model.eval()(IMAGE).softmax(1)[0, 1]), abs=1e-5)
    assert curves.probabilities[0, -1] == pytest.approx(0.5, abs=1e-5)


def test_best_pixels_keep_the_exact_share() -> None:
    kept = best_pixels(torch.zeros(2, 1, 10, 10), 0.25)
    assert kept.flatten(1).sum(1).tolist() == [25, 25]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_pixels(GOOD, 0.0), "area 0.0"),
        (lambda: preserved_score(Blob(), IMAGE, 1, GOOD[..., :8], 0.1), "do not fit"),
        (lambda: deletion_insertion(Blob(), IMAGE, 1, GOOD, "removal"), "deletion or insertion"),
        (lambda: deletion_insertion(Blob(), IMAGE, 1, GOOD, "deletion", steps=0), "steps is 0"),
        (lambda: class_activation_map(GOOD, GOOD, reduce="mean"), "gap_gradient, elementwise, weights"),
        (lambda: class_activation_map(GOOD, torch.ones(2), reduce="weights"), "do not fit 1 channels"),
        (lambda: class_activation_map(GOOD, GOOD[..., :3]), "the gradient is"),
        (lambda: feature_inversion(Blob(), "dropout", IMAGE[0]), r"\(1, c, h, w\)"),
        (lambda: feature_inversion(with_modules(), "4", IMAGE, prior="noise"), "dip or pixel"),
        (lambda: feature_inversion(with_modules(), "4", IMAGE, torch.zeros(8)), "nothing to invert"),
        (lambda: feature_inversion(with_modules(), "4", IMAGE, torch.ones(3)), "do not fit"),
        (lambda: feature_inversion(with_modules(), "4", IMAGE, steps=0), "at least one step"),
    ],
)
def test_bad_input(unchecked: None, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_peak_and_finish_keep_height_and_width_apart() -> None:
    maps = torch.zeros(1, 1, 6, 9)
    maps[0, 0, 2, 7] = 1
    assert peak(maps).tolist() == [[7, 2]]
    assert finish(maps, (12, 30), True, 0.0).shape == (1, 1, 12, 30)
    assert finish(maps, (12, 30), (5, 4), 0.0).shape == (1, 1, 5, 4)
    smooth = finish(torch.ones(1, 1, 6, 9), (6, 9), False, 1.5)
    assert torch.allclose(smooth, torch.ones(1, 1, 6, 9))


def test_drawing() -> None:
    assert unit(torch.full((4, 4), 3.0)).max() == 0
    ramp = colours(np.linspace(0, 1, 50)[None])
    assert (np.diff(ramp.astype(float).sum(-1)) > 0).all()  # ever brighter
    image = np.full((8, 10, 3), 128, np.uint8)
    assert overlay(image, torch.rand(8, 10)).shape == (8, 10, 3)
    with pytest.raises(ValueError, match="the map is"):
        overlay(image, torch.rand(10, 8))
    grid = sheet([[image, image]] * 3, ["a", "b"], ["one", "two", "three"], tile=60, points=[[None, (0.5, 0.5)]] * 3)
    assert grid.dtype == np.uint8
    assert grid.shape[2] == 3


@pytest.mark.parametrize("prior", ["dip", "pixel"])
def test_feature_inversion_lowers_the_error(prior: str) -> None:
    model = with_modules().train()
    state = torch.get_rng_state()
    mask = torch.ones(8)
    mask[:4] = 0
    found = feature_inversion(
        model, "4", IMAGE - 0.5, mask, prior=prior, steps=40, scales=3, lr=0.01 if prior == "dip" else 0.05
    )
    assert found.errors[-5:].mean() < 0.8 * found.errors[:3].mean()
    assert found.image.shape == IMAGE.shape
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    again = feature_inversion(model, "4", IMAGE - 0.5, mask, prior=prior, steps=2, scales=3)
    twice = feature_inversion(model, "4", IMAGE - 0.5, mask, prior=prior, steps=2, scales=3)
    assert torch.equal(again.image, twice.image)


@pytest.mark.parametrize("arm", EXTREMAL_PERTURBATION.arms)
def test_claim_runs_at_the_smoke_budget(arm: str, tmp_path: Path) -> None:
    claim = EXTREMAL_PERTURBATION
    kept: dict = {}

    def once(name, build):
        return kept.setdefault(name, build())

    settings = {**claim.budgets["smoke"].settings, **claim.data["scenes"].settings}
    outcomes = []
    for _ in range(2):
        torch.manual_seed(0)
        cell = Cell(
            arm, claim.arms[arm].options, 0, "scenes", settings, torch.device("cpu"), tmp_path, once, lambda share: None
        )
        outcomes.append(claim.run(cell))
    assert set(outcomes[0].metrics) == set(claim.metrics)
    assert 0 <= outcomes[0].metrics["pointing"] <= 1
    for key, value in outcomes[0].metrics.items():
        assert value == outcomes[1].metrics[key] or (math.isnan(value) and arm != "extremal-perturbation")
    for caption, picture in outcomes[0].pictures.items():
        assert caption
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 300
