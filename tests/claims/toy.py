"""A claim that computes nothing of interest, for tests of the engine."""

import os
import time
from pathlib import Path

import numpy as np
import torch

from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within


def run(cell: Cell) -> Outcome:
    base = cell.once("base", lambda: {"x": torch.rand(3)})["x"]
    if "count" in cell.settings:
        with Path(cell.settings["count"]).open("a") as log:
            log.write(f"{cell.arm}-{cell.seed}\n")
    for step in range(int(cell.settings["steps"])):
        time.sleep(cell.settings.get("sleep", 0.0))
        cell.progress(step / cell.settings["steps"])
    if cell.options.get("crash") and not os.environ.get("TOY_WHOLE"):
        raise ArithmeticError("the toy broke")
    score = 10 * float(base.mean()) + cell.options["lift"] + 0.1 * float(torch.rand(()))
    curve = [(float(step), 1 / (1 + step)) for step in range(10)]
    picture = np.full((40, 60, 3), 40 * cell.seed, dtype=np.uint8)
    return Outcome({"score": score, "error": 0.01 * cell.seed}, {"loss": curve}, {"a square": picture})


TOY = Claim(
    slug="toy",
    statement="The method beats the baseline by at least one point.",
    paper="By two points.",
    metrics={"score": Metric("score (points)"), "error": Metric("error", higher_is_better=False, digits=3)},
    arms={"base": Arm("Baseline", {"lift": 0.0}, baseline=True), "method": Arm("Method", {"lift": 2.0})},
    expectations=[Beats("method", "base", by=1.0), Within("method", "error", at_most=0.5)],
    data={"embedded": Data("nothing", paper={"method": 7.0}), "real": Data("real", needs="nowhere")},
    budgets={
        "smoke": Budget(1, {"steps": 1}),
        "small": Budget(3, {"steps": 3}),
        "full": Budget(5, {"steps": 5}),
    },
    run=run,
    axes={"loss": Axis("step", "loss")},
    limits="It is a toy.",
)
BROKEN = Claim(**{**TOY.__dict__, "arms": {**TOY.arms, "method": Arm("Method", {"lift": 2.0, "crash": True})}})
