"""Replays of the WeakNAS fixtures."""

import re

import numpy as np
import torch
from torch import Tensor

from saccade.efficiency import Cell, WeakPredictorSearch, load_nasbench_macro, one_hot, pool_schedule, rank
from saccade.efficiency.predictors import Ridge
from tests.conftest import SHARED
from tests.parity.fixtures import Fixture


def encodings(fixture: Fixture) -> dict[str, Tensor]:
    adjacency, ops = fixture.inputs["adjacency_padded"].tolist(), fixture.inputs["ops_padded"].tolist()
    cells = []
    for rows, names, size in zip(adjacency, ops, fixture.inputs["num_vertices"].tolist(), strict=True):
        cells.append(Cell(tuple(tuple(row[:size]) for row in rows[:size]), tuple(names[:size])))
    vertices = len(ops[0])
    edges, operations = (int(number) for number in re.findall(r"\d+", fixture.config["nb201"]))
    return {
        "out/sequence_encoding": torch.from_numpy(np.stack([cell.sequence(vertices) for cell in cells])),
        "out/padded_matrix_encoding": torch.from_numpy(np.stack([cell.matrix(vertices) for cell in cells])),
        "out/nb201_onehot": torch.from_numpy(one_hot(fixture.inputs["nb201_ops"].numpy(), (operations,) * edges)),
    }


def acquisition(fixture: Fixture) -> dict[str, Tensor]:
    """The authors compare negated predictions with values as they are: that is negated values here."""
    predictions, observed = fixture.inputs["predictions"].numpy(), -fixture.inputs["ytrain"].numpy()
    config = fixture.config
    factors = (config["ucb_factor"], config["ei_calibration"], config["confidence_factor"])
    results = {}
    for name in fixture.part("out"):
        order = rank(name.removeprefix("order_"), predictions, observed, None, *factors)  # type: ignore[arg-type]
        results[f"out/{name}"] = torch.from_numpy(order)
    tail = config["order_ei_ties_from"]  # improvements of 0 there: an order by chance, compared as a set
    if set(results["out/order_ei"][tail:].tolist()) == set(fixture.part("out")["order_ei"][tail:].tolist()):
        results["out/order_ei"] = torch.cat([results["out/order_ei"][:tail], fixture.part("out")["order_ei"][tail:]])
    return results


def schedule(fixture: Fixture) -> dict[str, Tensor]:
    return {
        f"out/pool_size_{number}": torch.tensor(
            pool_schedule(case["start"], case["end"], case["iterations"], case["decay"])
        )
        for number, case in enumerate(fixture.config["cases"])
    }


def search_loop(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    table = load_nasbench_macro(SHARED / "data" / "nas-bench" / config["table"].split(",")[0])
    penalty = float(re.findall(r"penalty (\S+)", config["predictor"])[0])

    class WholeTable(Ridge):
        """Labels come normalised by what is known; the reference normalises by the whole table."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> Ridge:
            values = table.values("test")
            raw = np.array([search.values[key] for key in search.result().evaluated])
            return super().fit(x, (raw - values.mean()) / values.std())

    search = WeakPredictorSearch(
        table,
        table.oracle("test"),
        WholeTable(penalty),
        init=config["init"],
        per_round=config["per_iteration"],
        pool=config["pool"],
        draw="greedy",
        budget=config["total"],
        free_top1=True,
    )
    search.batches = [[table.keys[row] for row in fixture.inputs["initial"].tolist()]]
    result = search.run()
    rows = [table.rows[key] for key in result.evaluated]
    queries = [row["evaluated"] for row in search.rounds]
    return {
        "out/evaluated": torch.tensor(rows),
        "out/num_evaluated": torch.tensor(queries),
        "out/pool": torch.from_numpy(np.stack(search.pool_members)),
        "out/best_so_far": torch.tensor([result.best_after(count) for count in queries], dtype=torch.float64),
    }


KINDS = {"encodings": encodings, "acquisition": acquisition, "schedule": schedule, "search_loop": search_loop}
