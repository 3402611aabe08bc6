from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.action.claims.motion_squeeze import MOTION_SQUEEZE, batches
from saccade.action.pictures import flow_colours
from saccade.claims import Cell, Outcome
from saccade.worlds.motion import MotionWorld


def compute(arm: str, data: str = "motion", **overrides: object) -> Outcome:
    settings = {**MOTION_SQUEEZE.budgets["smoke"].settings, **MOTION_SQUEEZE.data[data].settings, **overrides}
    torch.manual_seed(1)
    return MOTION_SQUEEZE.run(
        Cell(
            arm=arm,
            options=MOTION_SQUEEZE.arms[arm].options,
            seed=1,
            data=data,
            settings=settings,
            device=torch.device("cpu"),
            data_root=Path(),
            once=lambda name, build: build(),
            progress=lambda share: None,
        )
    )


@pytest.mark.parametrize("arm", list(MOTION_SQUEEZE.arms))
def test_smoke(arm: str) -> None:
    outcome = compute(arm)
    assert 0 <= outcome.metrics["top1"] <= 100
    assert [step for step, _ in outcome.curves["training loss"]] == [1, 2, 3, 4]
    for picture in outcome.pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 300
        assert picture.std() > 10
    assert len(outcome.pictures) == (2 if "ms" in arm else 1)


def test_a_cell_repeats() -> None:
    one, two = compute("tsm+ms"), compute("tsm+ms")
    assert one.metrics == two.metrics
    assert one.curves == two.curves


def test_epochs_pass_over_all_clips() -> None:
    clips = MotionWorld().batch("train", range(64))
    seen = [batch["label"] for batch in batches(clips, epochs=2, seed=0)]
    assert len(seen) == 8
    assert torch.equal(torch.cat(seen[:4]), clips.label)
    assert torch.equal(torch.cat(seen[4:]).sort().values, clips.label.sort().values)
    assert not torch.equal(torch.cat(seen[4:]), clips.label)


def test_colours_of_flow() -> None:
    east, west = (flow_colours(np.full((2, 1, 1), 1.0) * np.array([[[x]], [[0.0]]]), 1.0)[0, 0] for x in (1.0, -1.0))
    assert east.tolist() == [1, 0, 0]
    assert np.allclose(west, [0, 1, 1])
