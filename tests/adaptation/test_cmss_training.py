"""CMSS in the domain's task, its claim's cells, its pictures, and what its benchmark compares."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from saccade.adaptation import CMSS, CurriculumManager, InverseDecayLR, digit_classifier
from saccade.adaptation.claims.cmss import CMSS_CLAIM, KnownShares, pooled_world
from saccade.adaptation.curriculum_pictures import share_chart, weight_sheet
from saccade.adaptation.digits import DigitDomains
from saccade.adaptation.task import DomainAdaptation
from saccade.claims import Cell, Outcome
from saccade.training import fit


def cell(arm: str, data: str = "digits", root: Path = Path(), **settings: Any) -> Cell:
    return Cell(
        arm=arm,
        options=CMSS_CLAIM.arms[arm].options,
        seed=1,
        data=data,
        settings={**CMSS_CLAIM.budgets["smoke"].settings, **CMSS_CLAIM.data[data].settings, **settings},
        device=torch.device("cpu"),
        data_root=root,
        once=lambda name, build: build(),
        progress=lambda share: None,
    )


def compute(arm: str) -> Outcome:
    torch.manual_seed(1)
    return CMSS_CLAIM.run(cell(arm))


def test_every_player_has_a_schedule_of_its_own() -> None:
    """In the re-implementation that was read all three schedules belong to the optimiser of F and C."""
    scores = nn.Sequential(nn.Flatten(), nn.Linear(256, 1))
    method = CMSS(digit_classifier(), CurriculumManager(scores), manager_lr_mult=0.5)
    data = DigitDomains(["digits-inverted", "digits"], iterations=6, source_batch=8, target_batch=8)
    task = DomainAdaptation(
        method, lambda groups: torch.optim.SGD(groups, lr=0.1), lambda o: InverseDecayLR(o, gamma=10 / 6)
    )
    fit(task, data, epochs=1)
    rates = {
        player: optimizer.param_groups[0]["lr"]
        for player, optimizer in zip(method.players(), task.trainer.optimizers, strict=True)
    }
    last = 0.1 * 11**-0.75
    assert rates == pytest.approx({"manager": last / 2, "discriminator": last, "classifier": last})
    assert [schedule.scheduler.optimizer for schedule in task.trainer.lr_scheduler_configs] == task.trainer.optimizers
    measured = method.measures()
    assert set(measured) == {"effective_sample_size", "weight_source_0", "weight_source_1"}
    assert 1 <= measured["effective_sample_size"] <= 16


@pytest.mark.parametrize("arm", CMSS_CLAIM.arms)
def test_smoke(arm: str) -> None:
    outcome = compute(arm)
    assert set(outcome.metrics) == set(CMSS_CLAIM.metrics)
    assert 0 <= outcome.metrics["accuracy"] <= 100
    managed = "CMSS" in CMSS_CLAIM.arms[arm].title
    assert len(outcome.pictures) == (2 if managed else 0)
    for picture in outcome.pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 300
        assert picture.std() > 10
    if arm == "oracle":
        assert outcome.metrics["weight"] == pytest.approx(1.0)
        assert outcome.metrics["effective"] == pytest.approx(20.0)
    if not managed and arm != "oracle":
        assert outcome.metrics["weight"] == pytest.approx(1 / 3)
        assert outcome.metrics["effective"] == pytest.approx(60.0)


def test_a_cell_repeats() -> None:
    one, two = compute("cmss"), compute("cmss")
    assert one.metrics == two.metrics
    assert one.curves == two.curves


def test_every_tuned_arm_has_a_strength_everywhere() -> None:
    for data in CMSS_CLAIM.data.values():
        assert set(data.settings["strengths"]) == set(CMSS_CLAIM.arms) - {"source-only", "batch-norm"}


def test_the_embedded_world() -> None:
    world = pooled_world(cell("cmss"))
    assert len(world["source_0"]) == len(world["target"]) == 599
    assert len(world["test"]) == 599
    assert world["source_0_labels"].unique().tolist() == list(range(10))
    assert world["source_1_labels"].unique().tolist() == [0, 1]
    assert world["source_2_labels"].unique().tolist() == [0, 1]
    for name in ("source_0", "source_1", "source_2", "target", "test"):
        assert world[name].shape[1:] == (1, 16, 16)
        assert float(world[name].abs().max()) <= 1.0
    assert float(world["source_0"].mean()) < -0.2 < 0.2 < float(world["source_1"].mean())


@pytest.mark.parametrize("data", ["mnist-usps", "usps-mnist"])
def test_the_real_worlds_share_no_drawing_between_sources(data: str, data_root: Path) -> None:
    world = pooled_world(cell("cmss", data, data_root))
    sizes = {"mnist-usps": (4000, 7291, 2007), "usps-mnist": (3600, 8000, 2000)}[data]
    assert tuple(len(world[name]) for name in ("source_0", "target", "test")) == sizes
    assert 400 < len(world["source_1"]) < 1200
    clean = {row.numpy().tobytes() for row in (world["source_0"][world["source_0_labels"] < 2] * 127.5).round().short()}
    turned = [row.numpy().tobytes() for row in (-world["source_1"] * 127.5).round().short()]
    assert sum(row in clean for row in turned) <= 5  # a few of USPS' images are there twice


def test_known_shares_are_what_they_say() -> None:
    weights = KnownShares((1.0, 0.0, 0.0))(torch.zeros(6, 1, 2, 2))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.5, 0, 0, 0, 0]))


def test_pictures_show_what_they_are_given() -> None:
    shares = np.stack([np.linspace(0.5, 1, 40), np.linspace(0.5, 0, 40)], 1)
    first = share_chart(shares, np.full(40, 8.0), ["a", "b"], 16)
    assert not np.array_equal(first, share_chart(shares[:, ::-1], np.full(40, 8.0), ["a", "b"], 16))
    images, ids = torch.zeros(40, 1, 8, 8), torch.arange(40) % 2
    top = weight_sheet(images, torch.arange(40.0) + 100 * (ids == 0), ids, ["a", "b"], count=16)
    blue = (np.abs(top.astype(int) - [0x2F, 0x7D, 0xE1]).sum(2) < 6).sum(1)
    half = len(top) // 2
    assert blue[:half].sum() > 1.5 * blue[half:].sum()  # the first source has the most weight


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "cmss.py"
    spec = importlib.util.spec_from_file_location("benchmark_cmss", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_timed_computes_the_same(benchmark: ModuleType) -> None:
    given = benchmark.batch(2)
    found = []
    for updates in (None, benchmark.plain_updates):
        method = benchmark.cmss()
        for module in method.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        losses = benchmark.iteration(method, given, updates)()
        # what the discriminator is taught shows in its loss; the plain last step leaves further gradients in it
        trained = [*method.classifier.head.parameters(), next(method.classifier.body.parameters())]
        found.append([*losses, *(parameter.grad for parameter in trained), next(method.manager.parameters()).grad])
    for at, (ours, plain) in enumerate(zip(*found, strict=True)):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=2e-3, msg=f"number {at}")
    assert float(found[0][3].abs().max()) > 1e-4
