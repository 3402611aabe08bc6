import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from saccade.adaptation.claims.dsbn import DSBN
from saccade.adaptation.dsbn import DomainSpecificBatchNorm2d, convert_dsbn, merge_domain, use_domain
from saccade.claims import Cell, Outcome

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "dsbn.py"


def compute(arm: str, seed: int = 0, **overrides: object) -> Outcome:
    settings = {**DSBN.budgets["smoke"].settings, **DSBN.data["digits"].settings, **overrides}
    torch.manual_seed(seed)
    return DSBN.run(
        Cell(
            arm=arm,
            options=DSBN.arms[arm].options,
            seed=seed,
            data="digits",
            settings=settings,
            device=torch.device("cpu"),
            data_root=Path(),
            once=lambda name, build: build(),
            progress=lambda share: None,
        )
    )


def test_smoke_with_pictures() -> None:
    outcome = compute("dsbn")
    assert 0 <= outcome.metrics["accuracy"] <= 100
    assert len(outcome.pictures) == 2
    for caption, picture in outcome.pictures.items():
        assert caption.endswith("dsbn")
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 300
        assert picture.std() > 10


@pytest.mark.parametrize("arm", list(DSBN.arms))
def test_smoke(arm: str) -> None:
    outcome, again = compute(arm, 1), compute(arm, 1)
    assert outcome.metrics == again.metrics
    assert outcome.curves["training loss"]
    assert not outcome.pictures
    assert (outcome.metrics["gain"] != 0) == (arm == "dsbn-stage2")


def test_every_arm_starts_alike() -> None:
    """But for the second stage, whose student is to be another network than its teacher was."""
    first = {arm: compute(arm, 2, steps=1).curves["training loss"][0][1] for arm in ("mstn", "dsbn")}
    assert first["mstn"] == pytest.approx(first["dsbn"], abs=1e-6)


def test_what_is_timed_computes_the_same() -> None:
    spec = importlib.util.spec_from_file_location("benchmark", BENCHMARK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    dsbn = convert_dsbn(net, 2).eval()
    x = torch.randn(4, 3, 8, 8)
    dsbn[1].bns[1].running_mean.fill_(0.5)
    theirs = module.indexed(dsbn, torch.ones(4, dtype=torch.long)).eval()
    with use_domain(dsbn, 1):
        assert torch.equal(dsbn(x), theirs(x))
    assert torch.equal(merge_domain(dsbn, 1)(x), theirs(x))
    layer, mixed = DomainSpecificBatchNorm2d(3, 2), torch.tensor([0, 1, 1, 0])
    torch.testing.assert_close(layer(x, mixed), module.one_by_one(layer, x, mixed))
    assert len(list(module.comparisons())) == 5
