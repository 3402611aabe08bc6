from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from saccade.action.claims.motion_squeeze import small_backbone
from saccade.action.claims.selfy import SELFY
from saccade.claims import Cell, Outcome
from saccade.worlds.motion import MotionWorld


def compute(arm: str, data: str = "motion") -> Outcome:
    torch.manual_seed(1)
    return SELFY.run(
        Cell(
            arm=arm,
            options=SELFY.arms[arm].options,
            seed=1,
            data=data,
            settings={**SELFY.budgets["smoke"].settings, **SELFY.data[data].settings},
            device=torch.device("cpu"),
            data_root=Path(),
            once=lambda name, build: build(),
            progress=lambda share: None,
        )
    )


@pytest.mark.parametrize("arm", SELFY.arms)
def test_smoke(arm: str) -> None:
    outcome = compute(arm)
    assert 0 <= outcome.metrics["top1"] <= 100
    assert len(outcome.pictures) == (1 if arm in ("tsn", "selfy-1") else 2)
    for picture in outcome.pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 300
        assert picture.std() > 10


def test_a_cell_repeats() -> None:
    one, two = compute("selfy", "slow"), compute("selfy", "slow")
    assert one.metrics == two.metrics
    assert one.curves == two.curves


def test_one_frame_of_the_claims_world_says_nothing() -> None:
    """Trained on single frames the network of the claim guesses one direction of eight."""
    world = MotionWorld(**SELFY.data["motion"].settings["world"])
    train, test = world.batch("train", range(2048)), world.batch("test", range(1000))
    torch.manual_seed(0)
    network = small_backbone(None, None)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for frame in (0, 3):
        for rows in torch.arange(2048).split(32):
            loss = F.cross_entropy(network(train.video[rows, :, frame : frame + 1]), train.label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        right = (network(test.video[:, :, 1:2]).argmax(1) == test.label).double().mean()
    assert 0.08 < float(right) < 0.17  # 1/8, give or take four standard errors
