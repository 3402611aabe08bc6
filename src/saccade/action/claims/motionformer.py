"""The claim of Motionformer: trained on tracks, approximated on clusters, untrained on a moving patch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from saccade.action.track_pictures import attention_on_tracks, moving_patch
from saccade.action.track_reader import HIDDEN, TrackReader
from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within
from saccade.ops.frame_attention import (
    frame_attention,
    nystrom_attention,
    orthoformer_attention,
    performer_attention,
)
from saccade.training.fit import fit
from saccade.training.task import Task
from saccade.worlds.tracks import TrackWorld

SPEEDS = {"moving": 1.27, "half": 0.64, "still": 0.0}
"""Cells that an object moves a frame."""

BATCH, WARM_UP = 32, 50


class TrackStream(IterableDataset[dict[str, Tensor]]):
    """Batches of the track world, each clip seen once."""

    def __init__(self, world: TrackWorld, steps: int) -> None:
        self.world, self.steps = world, steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Batches in order."""
        for first in range(0, self.steps, 100):
            count = min(100, self.steps - first)
            clips = self.world.batch("train", range(first * BATCH, (first + count) * BATCH))
            for i in range(0, count * BATCH, BATCH):
                part = slice(i, i + BATCH)
                yield {"tokens": clips.tokens[part], "query": clips.query[part], "label": clips.label[part]}


class TrackReading(Task):
    """Train a track reader by cross-entropy with a warm-up and a cosine."""

    def __init__(self, reader: TrackReader, lr: float, steps: int) -> None:
        def schedule(step: int) -> float:
            rest = max(0, step - WARM_UP) / max(1, steps - WARM_UP)
            return min((step + 1) / WARM_UP, 1.0) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))

        super().__init__(
            lambda groups: torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
            lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, schedule),
            "step",
        )
        self.reader = reader

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return self.finite(F.cross_entropy(self.reader(batch["tokens"], batch["query"]), batch["label"]))


def run_tracks(cell: Cell) -> Outcome:
    """Train one attention at each speed, and count its right answers on clips it has not seen."""
    settings, kind = cell.settings, cell.options["attention"]
    metrics: dict[str, float] = {}
    outcome = Outcome(metrics)
    speeds = settings["speeds"]

    def report(share: float) -> None:
        cell.progress((len(metrics) + share) / len(speeds))

    for speed in speeds:
        torch.manual_seed(cell.seed)
        reader = TrackReader(kind)
        world = TrackWorld(SPEEDS[speed], seed=cell.seed)
        task = TrackReading(reader, settings["lr"][kind], settings["steps"])
        loader = DataLoader(TrackStream(world, settings["steps"]), batch_size=None)
        curve = fit(
            task,
            loader,
            steps=settings["steps"],
            seed=cell.seed,
            device=cell.device,
            progress=report,
            gradient_clip_val=1.0,
        )
        test = world.batch("test", range(settings["test_clips"]))
        reader.eval()
        with torch.no_grad():
            pairs = zip(test.tokens.split(256), test.query.split(256), strict=True)
            said = torch.cat([reader(t.to(cell.device), q.to(cell.device)).argmax(1).cpu() for t, q in pairs])
            metrics[speed] = 100 * float((said == test.label).double().mean())
            outcome.curves[f"training loss, objects {speed}"] = curve
            if speed == "moving":
                shown = slice(0, 3)
                looks = reader.looks_at(test.tokens[shown].to(cell.device), test.query[shown].to(cell.device))
                caption = f"Where {kind} attention looks from the marked token"
                outcome.pictures[caption] = attention_on_tracks(test, looks.cpu(), said, kind)
    return outcome


def clusters(seed: int, sharpness: float) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens around twelve centres: 6 heads, 4 frames of 49 cells, 32 channels."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centres = draw(12, 32)
    token = centres[torch.randint(12, (6, 4 * 49), generator=generator)] + 0.25 * draw(6, 4 * 49, 32)
    turn = torch.linalg.qr(draw(32, 32))[0] * sharpness
    return token @ turn, (token + 0.1 * draw(6, 4 * 49, 32)) @ turn, token + 0.3 * draw(6, 4 * 49, 32)


def approximate(kind: str, q: Tensor, k: Tensor, v: Tensor, count: int, seed: int) -> Tensor:
    """Trajectory tokens by one approximation of the cost of `count` prototypes."""
    generator = torch.Generator().manual_seed(seed + 10_000)
    if kind == "orthoformer":
        return orthoformer_attention(q, k, v, 4, count, generator=generator)
    if kind == "random":
        rows = torch.rand(q.shape[:2], generator=generator).argsort(1)[:, :count, None].expand(-1, -1, q.shape[2])
        scale = q.shape[-1] ** -0.25
        prototypes = (q * scale).gather(1, rows)
        near = (q * scale @ prototypes.mT).softmax(-1)
        far = (prototypes[:, None] @ (k * scale).unflatten(1, (4, -1)).mT).softmax(-1)
        return (near[:, None] @ (far @ v.unflatten(1, (4, -1)))).transpose(1, 2)
    if kind == "nystrom":
        return nystrom_attention(q, k, v, 4, count, spatial=True)
    return performer_attention(q, k, v, 4, num_features=2 * count, generator=generator)


def run_clusters(cell: Cell) -> Outcome:
    """How far an approximation is from exact attention, without training."""
    q, k, v = clusters(cell.seed, cell.settings["sharpness"])
    exact = frame_attention(q, k, v, 4)

    def error(kind: str, count: int) -> float:
        return float((approximate(kind, q, k, v, count, cell.seed) - exact).norm() / exact.norm())

    kind, count = cell.options["approximation"], cell.settings["prototypes"]
    curve = [(float(n), error(kind, n)) for n in (8, 16, 32, 64)]
    ratio = error(kind, count) / error("orthoformer", count)
    return Outcome({"error": error(kind, count), "ratio": ratio}, {"error over prototypes": curve})


def patch_clip(seed: int) -> tuple[Tensor, Tensor]:
    """Six frames of 8 x 8 cells of 8 x 8 pixels: a textured cell goes right and down over a still ground."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(64, 64, generator=generator).expand(6, -1, -1).clone()
    thing = torch.randn(64, generator=generator)
    place = torch.tensor([9 * t + 9 for t in range(6)])
    cells[torch.arange(6), place] = thing
    return cells + 0.1 * torch.randn(cells.shape, generator=generator), place


def run_patch(cell: Cell) -> Outcome:
    """What a query on a moving patch gets back from later frames, without training."""
    cells, place = patch_clip(cell.seed)
    unit = F.normalize(cells, dim=-1)  # t p d: descriptor of each cell, as query, key and value
    flat, width = unit.flatten(0, 1)[None], unit.shape[-1]
    asked = unit[0, place[0]]
    if cell.options["follow"]:
        q = asked[None, None] * width**0.5 / 0.05  # a temperature of 0.05 in the place of sqrt(d)
        found = frame_attention(q, flat, flat, len(unit))[0, 0]
    else:
        found = unit[:, place[0]]  # what the same cell holds in each frame
    likeness = F.cosine_similarity(found[1:], asked[None])
    picture = moving_patch(cells, place, F.cosine_similarity(found, asked[None]), cell.arm.replace("-", " "))
    return Outcome({"cosine": float(likeness.min())}, pictures={f"A moving patch, {cell.arm}": picture})


def run(cell: Cell) -> Outcome:
    """One arm at one seed."""
    if "attention" in cell.options:
        return run_tracks(cell)
    return run_clusters(cell) if "approximation" in cell.options else run_patch(cell)


_TRACKS, _CLUSTERS, _PATCH = ("tracks", "plateau"), ("clusters", "sharp"), ("patch",)

_PLATEAU_LR = {"joint": 4e-3, "divided": 2e-3, "trajectory": 2e-3}


def _top1(what: str, on: tuple[str, ...] = _TRACKS) -> Metric:
    return Metric(f"top-1, objects {what} (%)", on=on)


def _settings(**given: Any) -> dict[str, Any]:
    return {"speeds": ("moving", "still"), "lr": dict.fromkeys(HIDDEN, 4e-3), "prototypes": 16, **given}


MOTIONFORMER = Claim(
    slug="motionformer",
    statement=(
        "Where objects move, a block of trajectory attention tells what a marked object does better than one of "
        "divided space-time attention by at least 4 points of top-1 accuracy; where they stand still, it is no better. "
        "Untrained, it finds a moving patch again, and Orthoformer's few prototypes come within 0.2 of exact attention "
        "on clustered tokens, at most half the error of the alternatives."
    ),
    paper=(
        "Top-1, 16 frames of 224 px: Something-Something V2: joint 64.0 %, divided 64.2 %, trajectory 66.5 %; "
        "Kinetics-400: 79.2, 78.5 and 79.7 %. The margin grows with the stride of the frames."
    ),
    metrics={
        "moving": _top1("moving"),
        "still": _top1("still"),
        "half": _top1("at half speed", ("plateau",)),
        "error": Metric("relative error", higher_is_better=False, digits=3, on=_CLUSTERS),
        "ratio": Metric("error over Orthoformer's", higher_is_better=False, digits=2, on=_CLUSTERS),
        "cosine": Metric("least cosine to the patch", digits=3, on=_PATCH),
    },
    arms={
        "joint": Arm("joint attention", {"attention": "joint"}, baseline=True, on=_TRACKS),
        "divided": Arm("divided attention", {"attention": "divided"}, baseline=True, on=_TRACKS),
        "trajectory": Arm("trajectory attention", {"attention": "trajectory"}, on=_TRACKS),
        "random": Arm("random prototypes", {"approximation": "random"}, baseline=True, on=_CLUSTERS),
        "nystrom": Arm("Nystrom", {"approximation": "nystrom"}, baseline=True, on=_CLUSTERS),
        "performer": Arm("Performer", {"approximation": "performer"}, baseline=True, on=_CLUSTERS),
        "orthoformer": Arm("Orthoformer", {"approximation": "orthoformer"}, on=_CLUSTERS),
        "same-cell": Arm("the same cell over time", {"follow": False}, baseline=True, on=_PATCH),
        "trajectory-tokens": Arm("trajectory-tokens", {"follow": True}, on=_PATCH),
    },
    expectations=[
        Beats("trajectory", "divided", by=4.0, metric="moving"),
        Beats("divided", "trajectory", by=0.0, metric="still", on=("tracks",)),
        Beats("trajectory", "joint", by=0.0, metric="moving", on=("plateau",)),
        Within("orthoformer", "error", at_most=0.2),
        Within("random", "ratio", at_least=2.0),
        Within("nystrom", "ratio", at_least=2.0),
        Within("performer", "ratio", at_least=2.0),
        Within("trajectory-tokens", "cosine", at_least=0.9),
        Within("same-cell", "cosine", at_most=0.5),
    ],
    data={
        "tracks": Data(
            "Track world: four objects on 5 x 5 cells over 6 frames, moving 1.27 cells a frame or none; in which of "
            "six orders does the marked one go through three states?",
            note=(
                "Chance is 16.7 %, and 50 % is reached from the marked token alone. The networks have one block and "
                "22,000 parameters and start from scratch; the paper's are pretrained on images."
            ),
        ),
        "plateau": Data(
            "The same world trained to a plateau, with 3,000 steps, and also at half speed",
            note="Chance is 16.7 %. Takes about a quarter of an hour on two cores.",
            settings={"steps": 3000, "speeds": ("moving", "half", "still"), "lr": _PLATEAU_LR},
        ),
        "clusters": Data(
            "Tokens around 12 random centres: 6 heads, 4 frames of 49 cells, 32 channels; 16 prototypes, 32 features",
            note="Clustered tokens are the favourable case; with fewer prototypes than clusters nobody is good.",
            settings={"sharpness": 1.0},
            seeds=5,
        ),
        "sharp": Data(
            "The same with queries and keys scaled by 1.7, so that attention is sharper",
            settings={"sharpness": 1.7},
            seeds=5,
        ),
        "patch": Data("A textured patch that moves one cell a frame, right and down, over a still ground", seeds=5),
    },
    budgets={
        "smoke": Budget(1, _settings(steps=20, test_clips=64)),
        "small": Budget(5, _settings(steps=800, test_clips=2048)),
        "full": Budget(10, _settings(steps=3000, test_clips=4096, lr=_PLATEAU_LR)),
    },
    run=run,
    axes={
        **{f"training loss, objects {speed}": Axis("optimiser step", "cross-entropy (nats)") for speed in SPEEDS},
        "error over prototypes": Axis("prototypes (Performer: half the features)", "relative error", log_x=True),
    },
    limits=(
        "The world gives tokens: from pixels, tiny transformers of all three kinds stayed near chance for some hundred "
        "steps, except divided attention on a bright disk, which reached 50 %, the opposite of the paper's order. The "
        "paper's models start from an image transformer. At 800 steps the comparison is one of how soon matching is "
        "learnt, and no margin over joint attention is promised: in a run of five seeds it came 2 points below "
        "trajectory attention on moving objects and 6 above it on still ones, with a spread of 10. Trained to a "
        "plateau (--on plateau) joint attention catches up: both are at 99 % and more on moving objects, the "
        "difference of 0.4 points is not settled by five seeds, and divided attention stays near 80 %, for the object "
        "has left the cell it looks at. The "
        "learning rate was chosen among 1e-3, 2e-3, 4e-3 and 1e-2 (plateau: 1e-3 to 4e-3, on moving objects) for each "
        "arm alike, on a validation stream of other seeds."
    ),
)
