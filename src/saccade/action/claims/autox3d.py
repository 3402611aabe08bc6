"""The claims of Auto-X3D: the search on a space that is known, and the network it finds for moving disks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from saccade.action.autox3d import AutoX3D, X3DSearchSpace
from saccade.action.known_space import KnownSpace
from saccade.action.search_pictures import accuracy_over_cost, choices_picture
from saccade.action.task import ActionClassification
from saccade.action.x3d_search import SearchSettings, search_x3d
from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within
from saccade.nn.architectures import CategoricalArchitectureDistribution
from saccade.nn.probabilistic_search import ProbabilisticSearch
from saccade.training.fit import fit
from saccade.worlds.motion import CLASSES, MotionClips, MotionWorld

FIXED = 14
"""Samples a step where their number does not adapt, and the most where it does."""


def run(cell: Cell) -> Outcome:
    """One arm at one seed."""
    return run_table(cell) if cell.data == "table" else run_motion(cell)


def run_table(cell: Cell) -> Outcome:
    """Search a space of 65,536 architectures of which all is known."""
    steps = cell.settings["steps"]
    if cell.arm == "random":
        drawn = int(cell.once("adaptive", partial(samples_of_adaptive, cell.seed, steps))["samples"])
        known = KnownSpace(cell.seed)
        rows = known.space.sample(4 * drawn, torch.Generator().manual_seed(cell.seed))
        rows = rows[known.cost(rows) <= known.target][:drawn]  # costs are known beforehand; utilities are not
        found = rows[torch.stack([known.look(None, row) for row in rows]).argmax()]
        return Outcome(_table_metrics(known, found, drawn, steps))
    known, search, curves = search_table(cell.seed, steps, cell.options["minimum"])
    outcome = Outcome(_table_metrics(known, search.derive(), search.samples_drawn, steps), curves)
    caption = f"Where the search ended, {cell.arm}"
    outcome.pictures[caption] = choices_picture(search.distribution, known.utility_of_choices())
    return outcome


def search_table(seed: int, steps: int, minimum: int) -> tuple[KnownSpace, ProbabilisticSearch, dict[str, Any]]:
    """Search a known space; the space, the search at its end, and curves."""
    known = KnownSpace(seed)
    distribution = CategoricalArchitectureDistribution(known.space)
    search = ProbabilisticSearch(
        known.look,
        distribution,
        known.cost,
        known.target,
        cost_weight=10.0,
        sample_factor=0.5,
        min_samples=minimum,
        max_samples=FIXED,
        architecture_optimizer=torch.optim.Adam(distribution.parameters(), 0.025),
        generator=torch.Generator().manual_seed(seed),
    )
    names = ("entropy", "samples a step", "expected cost over the target")
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for step in range(steps):
        sampled = search.step(None, None)
        if step % max(1, steps // 50) == 0:
            with torch.no_grad():
                cost = float(distribution.expected_cost(known.cost)) / known.target
            for name, value in zip(names, (sampled.entropy, float(len(sampled.weights)), cost), strict=True):
                curves[name].append((float(step), value))
    return known, search, curves


def samples_of_adaptive(seed: int, steps: int) -> dict[str, Tensor]:
    """How many architectures the adaptive search draws."""
    return {"samples": torch.tensor(search_table(seed, steps, 2)[1].samples_drawn)}


def _table_metrics(known: KnownSpace, found: Tensor, samples: int, steps: int) -> dict[str, float]:
    cost = float(known.cost(found[None])[0]) / known.target
    return {"score": known.score(found), "share": 100 * samples / (FIXED * steps), "cost": cost}


def motion_space() -> X3DSearchSpace:
    """Four blocks in two stages, for 4 frames of 16 pixels."""
    return X3DSearchSpace(
        frames=4,
        crop=16,
        stride=1,
        num_classes=len(CLASSES),
        kernels=("1x3x3", "3x3x3", "5x3x3"),
        expansions=(1.0, 2.25),
        candidates=(3, 3),
        groups=(8, 12),
        depths=(2, 2),
        stem=8,
        head=48,
        features=64,
        in_channels=1,
    )


def by_hand(space: X3DSearchSpace) -> Tensor:
    """X3D's own choices, at the greatest widths."""
    own = space.space.decode(space.x3d())
    return space.space.encode({name: space.space.decisions[name][-1] if "width" in name else own[name] for name in own})


def batch_of(clips: MotionClips, step: int, size: int = 32) -> dict[str, Tensor]:
    """The batch of a step."""
    rows = torch.arange(step * size, (step + 1) * size) % len(clips.label)
    return {"video": clips.video[rows], "label": clips.label[rows]}


def train_from_scratch(cell: Cell, choices: Tensor, train: MotionClips, test: MotionClips) -> tuple[float, Any]:
    """Top-1 of an architecture trained from scratch, and its loss curve."""
    steps, lr = cell.settings["train_steps"], cell.settings["lr"]
    torch.manual_seed(cell.seed)
    backbone = AutoX3D(motion_space().decode(choices), len(CLASSES), dropout=0.0)
    task = ActionClassification(
        backbone,
        len(CLASSES),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=lr, weight_decay=1e-4),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps),
        schedule="step",
    )
    content: Any = [batch_of(train, step) for step in range(steps)]
    loader = torch.utils.data.DataLoader(content, batch_size=None)
    curve = fit(task, loader, steps=steps, seed=cell.seed, device=cell.device)
    task.eval()
    with torch.no_grad():
        said = torch.cat([task(video.to(cell.device)).argmax(1).cpu() for video in test.video.split(250)])
    return 100 * float((said == test.label).double().mean()), curve


def run_motion(cell: Cell) -> Outcome:
    """Search a network for moving disks, or take one, and train it from scratch."""
    settings = cell.settings
    world = MotionWorld(seed=cell.seed, **settings["world"])
    train, test = (world.batch(split, range(settings[split])) for split in ("train", "test"))
    space = motion_space()
    costs, hand = space.cost(), by_hand(space)
    target = settings["budget"] * float(costs(hand[None])[0])
    outcome = Outcome({})
    if cell.arm == "random":
        drawn = space.space.sample(400, torch.Generator().manual_seed(cell.seed))
        rows = drawn[costs(drawn) <= target][: settings["networks"]]
    elif cell.arm == "hand":
        rows = hand[None]
    else:
        held_out = world.batch("held out", range(settings["held_out"]))
        result = search_x3d(
            space,
            partial(batch_of, train),
            partial(batch_of, held_out),
            target,
            SearchSettings(**settings["search"], seed=cell.seed),
            device=cell.device,
            progress=lambda share: cell.progress(0.8 * share),
        )
        rows = result.choices[None]
        every = max(1, len(result.history) // 50)
        for key, name in (("entropy", "entropy"), ("expected_cost", "expected cost over the target")):
            outcome.curves[name] = [(row["step"], row[key]) for row in result.history[::every]]
        outcome.pictures["What the search settled on"] = choices_picture(result.distribution, chosen=result.choices)
    found = [train_from_scratch(cell, row, train, test) for row in rows]
    relative = [float(cost) / target for cost in costs(rows)]
    outcome.metrics = {"top1": sum(top1 for top1, _ in found) / len(found), "cost": sum(relative) / len(relative)}
    outcome.curves["training loss"] = found[0][1]
    if cell.arm == "random":
        points = list(zip(relative, (top1 for top1, _ in found), strict=True))
        outcome.pictures["Random networks within the target"] = accuracy_over_cost(points)
    return outcome


_MOTION: dict[str, Any] = {
    "world": {
        "size": 16,
        "frames": 4,
        "speed": (1.5, 2.5),
        "radius": (2.5, 3.5),
        "brightness": 2.5,
        "contrast": 0.3,
    },
    "budget": 0.6,
}


def _settings(steps: int, search: int, train_steps: int, clips: int, networks: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "search": {
            "steps": search,
            "optimizer": "adamw",
            "lr": 1e-2,
            "architecture_lr": 0.05,
            "sample_factor": 0.3,
            "max_samples": 4,
        },
        "train_steps": train_steps,
        "lr": 1e-2,
        "train": clips,
        "held_out": clips // 2,
        "test": 1000,
        "networks": networks,
    }


AUTOX3D = Claim(
    slug="autox3d",
    statement=(
        "On a space of 65,536 architectures of which all is known, the search ends within 7 % of the way from the mean "
        "to the best architecture that keeps to the budget, at least 8 points nearer than random search with as many "
        "looks; adapting the number of samples to the entropy saves 55 % of them and more."
    ),
    paper=(
        "Kinetics-400, top-1 at the cost of X3D: up to 1.3 points better, or up to 1.74 times less compute at the same "
        "accuracy (abstract). Adaptive sampling saves 64 % of the samples (arXiv:2011.10949, abstract)."
    ),
    metrics={
        "score": Metric("score (1: best within the target, 0: their mean)", digits=3, on=("table",)),
        "share": Metric("samples (% of 14 a step)", higher_is_better=False, on=("table",)),
        "top1": Metric("top-1 (%)", on=("motion",)),
        "cost": Metric("cost over the target", higher_is_better=False, digits=2),
    },
    arms={
        "random": Arm("random architectures", baseline=True),
        "fixed": Arm("search, 14 samples a step", {"minimum": FIXED}, baseline=True, on=("table",)),
        "adaptive": Arm("search, adaptive samples", {"minimum": 2}, on=("table",)),
        "hand": Arm("X3D by hand, dearer", baseline=True, on=("motion",)),
        "searched": Arm("searched", on=("motion",)),
    },
    expectations=[
        Within("adaptive", "score", at_least=0.93),
        Beats("adaptive", "random", by=0.08, metric="score"),
        Within("adaptive", "share", at_most=45.0),
        Within("adaptive", "cost", at_most=1.05),
        Beats("searched", "random", by=5.0, metric="top1"),
        Beats("searched", "hand", by=0.0, metric="cost"),
        Within("searched", "cost", at_most=1.0),
    ],
    data={
        "table": Data(
            "8 decisions of 4 choices with utilities, interactions of neighbours and costs; looks have noise of 0.3",
            note=(
                "The target is the median cost. A score above 1 is a mode a little over the target. Random search "
                "looks at as many architectures as the adaptive search draws, all of them within the target."
            ),
            seeds=60,
        ),
        "motion": Data(
            "Motion world: a bright disk moves 1.5 to 2.5 px a frame in one of 8 directions; 16 x 16 px, 4 frames",
            note=(
                "331,776 networks of up to four blocks; the target is 0.6 of the multiply-adds of X3D's own choices at "
                "the greatest widths. All networks are trained from scratch with the same steps; the random arm is "
                "the mean of several networks within the target. Takes a quarter of an hour."
            ),
            settings=_MOTION,
        ),
    },
    budgets={
        "smoke": Budget(1, _settings(20, 6, 4, 128, 2)),
        "small": Budget(3, _settings(400, 400, 500, 16000, 3)),
        "full": Budget(10, _settings(400, 4000, 4000, 128000, 8)),
    },
    run=run,
    axes={
        "entropy": Axis("step", "entropy (nats)"),
        "samples a step": Axis("step", "architectures"),
        "expected cost over the target": Axis("step", "cost over the target"),
        "training loss": Axis("optimiser step", "cross-entropy (nats)"),
    },
    limits=(
        "The known space is small, and its choices nearly add up, which suits a factorised distribution. On a single "
        "seed the search may commit early and end at 0.7 to 0.8; 14 samples a step do so less often. Costs are known "
        "exactly, utilities through noise. "
        "The network claim (--on motion) fails: in this world most networks of the space learn the task (searched "
        "98.5 %, random ones 98.6 %, by hand 97.9 %, three seeds), so that five points over random ones are not "
        "there to be won; what the search does bring is X3D's accuracy at less than half of its cost. With 200 "
        "steps all stood on the plateau they start from, and chance decided (searched 54, 65 and 98 %, random 60, "
        "79 and 58 %, by hand 79, 79 and 100 %). Kernels of one frame are not blind to motion, for the stem of X3D "
        "mixes five frames: with 300 steps such networks reached 60 to 90 %. The space, the penalty and the number "
        "of samples are choices of ours; the paper's tables were not available to us."
    ),
)
