"""The claims of Auto-X3D: a smoke run of every arm, and the known space."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.action.claims.autox3d import AUTOX3D, by_hand, motion_space
from saccade.action.known_space import KnownSpace
from saccade.claims import Cell, Outcome


def compute(arm: str, data: str) -> Outcome:
    torch.manual_seed(1)
    return AUTOX3D.run(
        Cell(
            arm=arm,
            options=AUTOX3D.arms[arm].options,
            seed=1,
            data=data,
            settings={**AUTOX3D.budgets["smoke"].settings, **AUTOX3D.data[data].settings},
            device=torch.device("cpu"),
            data_root=Path(),
            once=lambda name, build: build(),
            progress=lambda share: None,
        )
    )


@pytest.mark.parametrize(("data", "arm"), [(data, arm) for data in AUTOX3D.data for arm in AUTOX3D.for_data(data).arms])
def test_smoke(data: str, arm: str) -> None:
    outcome, narrowed = compute(arm, data), AUTOX3D.for_data(data)
    assert set(outcome.metrics) == set(narrowed.metrics)
    assert all(np.isfinite(value) for value in outcome.metrics.values())
    assert set(outcome.curves) <= set(AUTOX3D.axes)
    for picture in outcome.pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 300
        assert picture.std() > 10


@pytest.mark.parametrize(("data", "arm"), [("table", "adaptive"), ("motion", "searched")])
def test_a_cell_repeats(data: str, arm: str) -> None:
    one, two = compute(arm, data), compute(arm, data)
    assert one.metrics == two.metrics
    assert one.curves == two.curves


def test_random_search_looks_at_as_many_as_the_adaptive_one_draws() -> None:
    assert compute("random", "table").metrics["share"] == compute("adaptive", "table").metrics["share"]


def test_a_known_space_is_known() -> None:
    known = KnownSpace(3, decisions=4, choices=3)
    rows = torch.cartesian_prod(*4 * [torch.arange(3)])
    utility, cost = known.utility(rows), known.cost(rows)
    for row, value in list(zip(rows.tolist(), utility.tolist(), strict=True))[::7]:
        single = sum(float(known.single[i, c]) for i, c in enumerate(row))
        pairs = sum(float(known.pair[i, row[i], row[i + 1]]) for i in range(3))
        assert value == pytest.approx(single + pairs)
    feasible = cost <= known.target
    assert float(feasible.double().mean()) == pytest.approx(0.5, abs=0.02)
    best = rows[feasible][utility[feasible].argmax()]
    assert known.score(best) == pytest.approx(1)
    assert np.mean([known.score(row) for row in rows[feasible]]) == pytest.approx(0, abs=1e-9)
    looks = torch.stack([known.look(None, best) for _ in range(2000)])
    assert float(looks.mean()) == pytest.approx(known.best, abs=0.03)
    assert float(looks.std()) == pytest.approx(known.noise, rel=0.1)


def test_the_budget_is_a_share_of_the_network_by_hand_and_leaves_room() -> None:
    space = motion_space()
    cost, hand = space.cost(), by_hand(space)
    architecture = space.decode(hand)
    assert {block.kernel for stage in architecture.stages for block in stage} == {(3, 3, 3)}
    drawn = space.space.sample(2000, torch.Generator().manual_seed(0))
    share = float((cost(drawn) <= 0.6 * cost(hand[None])).double().mean())
    assert 0.3 < share < 0.97
