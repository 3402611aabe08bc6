"""The claim of CMSS: three pooled sources, of which two look and teach otherwise; the manager points at the third."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.adaptation.baselines import DomainAdversarial, SourceOnly
from saccade.adaptation.claims.world import accuracy, train
from saccade.adaptation.cmss import CMSS, CurriculumManager
from saccade.adaptation.curriculum_pictures import share_chart, weight_sheet
from saccade.adaptation.datamodule import DomainSets
from saccade.adaptation.digits import draw_shots
from saccade.adaptation.images import TensorImages
from saccade.adaptation.method import AdaptationMethod
from saccade.adaptation.networks import digit_classifier
from saccade.adaptation.schedules import InverseDecayLR
from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within
from saccade.data.images import load_digits, load_mnist, load_usps
from saccade.data.loading import mix
from saccade.worlds.digits import LOOKS, DigitLook, restyle

SOURCES = ("clean digits", "inverted 0 and 1", "noisy inverted 0 and 1")
SOURCE_LOOKS = (
    LOOKS["plain"],
    LOOKS["inverted"],
    DigitLook(ground="noise", contrast=0.4, strength=0.45, brightness=0.15, inverted=True),
)


def pooled_world(cell: Cell) -> dict[str, Tensor]:
    """Three sources and a target, as the cell's data says; all that is random comes from its seed.

    Returns:
        `source_0` to `source_2`, `target` and `test`, each with `_labels`; images 16 x 16 in [-1, 1].
    """
    generator = torch.Generator().manual_seed(mix(cell.seed, 0))
    if cell.data == "digits":
        digits = load_digits()
        halves = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
        order = halves[:1_198][torch.randperm(1_198, generator=generator)]
        images, labels = digits.images, digits.labels
        # few drawings: the harmful sources show 0 and 1 of the clean one's in their own looks
        drawn = [order[:599]] * 3
        target, test = (images[order[599:]], labels[order[599:]]), (images[halves[1_198:]], labels[halves[1_198:]])
    else:
        mnist = load_mnist(cell.data_root, "test")
        centre = _centre(mnist.images)
        usps, usps_test = (load_usps(cell.data_root, split) for split in ("train", "test"))
        if cell.data == "mnist-usps":
            images, labels, sizes = centre, mnist.labels, (4_000, 3_000, 3_000)
            target, test = (usps.images, usps.labels), (usps_test.images, usps_test.labels)
        else:
            images, labels, sizes = usps.images, usps.labels, (3_600, 1_800, 1_891)
            target, test = (centre[:8_000], mnist.labels[:8_000]), (centre[8_000:], mnist.labels[8_000:])
        drawn = list(torch.randperm(len(images), generator=generator).split(list(sizes)))
    drawn[1:] = [part[labels[part] < 2] for part in drawn[1:]]
    made = {f"source_{at}": (images[part], labels[part]) for at, part in enumerate(drawn)}
    looks = {f"source_{at}": look for at, look in enumerate(SOURCE_LOOKS)}
    world: dict[str, Tensor] = {}
    for name, (pictures, classes) in {**made, "target": target, "test": test}.items():
        look = looks.get(name, LOOKS[cell.settings["target"]])
        world[name] = restyle(pictures, look, size=16, seed=cell.seed, split=f"{cell.data}/{name}") * 2 - 1
        world[f"{name}_labels"] = classes
    return world


def _centre(images: UInt8[Tensor, "n 28 28"]) -> UInt8[Tensor, "n 16 16"]:
    """The middle 20 x 20 pixels of MNIST at 16 x 16, which makes its digits as large as those of USPS."""
    return F.interpolate(images[:, None, 4:24, 4:24].float(), (16, 16), mode="area").round().byte().squeeze(1)


class KnownShares(CurriculumManager):
    """Weights by source, for arms that are told what the manager has to find out: a batch holds equal parts of each.

    Args:
        shares: Of each source.
    """

    def __init__(self, shares: tuple[float, ...]) -> None:
        super().__init__(nn.Identity())
        self.shares = shares
        self.idle = nn.Parameter(torch.zeros(()))  # the manager's step wants something to differentiate

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """The shares, spread over the images of their sources."""
        each = len(images) // len(self.shares)
        shares = torch.tensor(self.shares, device=images.device)
        return (shares / each).repeat_interleave(each) + 0.0 * self.idle


class Watched(CMSS):
    """Keeps what the task asks for after each iteration."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[dict[str, float]] = []

    def measures(self) -> dict[str, float]:
        """Effective sample size and shares."""
        self.seen.append(super().measures())
        return self.seen[-1]


def small_manager() -> CurriculumManager:
    """Two convolutions and two linear layers; its scores are bounded at 2."""
    layers = [
        nn.Conv2d(1, 8, 5, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    ]
    return CurriculumManager(nn.Sequential(*layers), bound=2.0)


def build(options: Mapping[str, Any], strength: float) -> AdaptationMethod:
    """An arm's method: the same networks for all, the classifier's start first.

    Args:
        options: The arm's.
        strength: Weight of the adversary at the end of its ramp.

    Returns:
        The method, with random weights.
    """
    classifier = digit_classifier(side=16)
    if options["kind"] == "source-only":
        return SourceOnly(classifier)
    conditional = options.get("conditional", False)
    discriminator = nn.Sequential(nn.Linear(1280 if conditional else 128, 128), nn.ReLU(), nn.Linear(128, 1))
    if options["kind"] == "dann":  # which takes half of the two domains' losses
        return DomainAdversarial(classifier, discriminator, 2 * strength, conditional)
    known = options.get("known")
    return Watched(
        classifier,
        KnownShares(known) if known else small_manager(),
        discriminator,
        strength,
        conditional,
        options.get("weighted_discriminator", False),
        manager_lr_mult=0.5,
    )


def adapted(cell: Cell, strength: float) -> tuple[AdaptationMethod, dict[str, Tensor], list[tuple[float, float]]]:
    """Train an arm.

    Args:
        cell: Which.
        strength: See `build`.

    Returns:
        The method, the world and the training loss.
    """
    world = cell.once("world", lambda: pooled_world(cell))
    torch.manual_seed(mix(cell.seed, 1))
    method, steps = build(cell.options, strength), cell.settings["steps"]
    data = DomainSets(
        [TensorImages(world[f"source_{at}"], world[f"source_{at}_labels"]) for at in range(3)],
        [TensorImages(world["target"])],
        source_batch=20,
        target_batch=48,
        iterations=steps,
        seed=cell.seed,
    )
    curve = train(cell, method, data, lr_scheduler=lambda optimizer: InverseDecayLR(optimizer, 10 / steps))
    return method, world, curve


def validation_accuracy(cell: Cell, strength: float) -> float:
    """What strengths were chosen by: accuracy on 20 labelled target images a class, for seeds that no claim uses."""
    method, world, _ = adapted(cell, strength)
    few = draw_shots(world["target_labels"], 20, cell.seed)
    return accuracy(method, TensorImages(world["target"][few], world["target_labels"][few]), cell.device)


def run_cmss(cell: Cell) -> Outcome:
    """One arm at one seed."""
    method, world, curve = adapted(cell, cell.settings["strengths"].get(cell.arm, 0.0))
    test = TensorImages(world["test"], world["test_labels"])
    weight, effective = 1 / 3, 60.0  # without a manager all sources weigh the same
    curves, pictures = {"training loss": curve}, {}
    if isinstance(method, Watched):
        shares = np.array([[row[f"weight_source_{at}"] for at in range(3)] for row in method.seen])
        sizes = np.array([row["effective_sample_size"] for row in method.seen])
        half = len(shares) // 2
        weight, effective = float(shares[half:, 0].mean()), float(sizes[half:].mean())
        if "known" not in cell.options:
            title = CMSS_CLAIM.arms[cell.arm].title
            curves["weight on the helpful source"] = [(at, shares[at, 0]) for at in range(0, len(shares), 4)]
            pictures[f"Shares of the weight over training: {title}"] = share_chart(shares, sizes, SOURCES, 60)
            pictures[f"Source images with most and least weight at the end: {title}"] = weighed(method, world, cell)
    metrics = {
        "accuracy": accuracy(method, test, cell.device),
        "weight": weight,
        "selects": float(weight >= 0.7),
        "effective": effective,
    }
    return Outcome(metrics, curves, pictures)


@torch.no_grad()
def weighed(method: CMSS, world: dict[str, Tensor], cell: Cell) -> np.ndarray:
    """What the manager thinks of a hundred images of each source."""
    parts = [world[f"source_{at}"][:100] for at in range(3)]
    images, ids = torch.cat(parts), torch.arange(3).repeat_interleave(torch.tensor([len(part) for part in parts]))
    return weight_sheet(images, method.manager(images.to(cell.device)).cpu(), ids, SOURCES)


STRENGTHS: dict[str, dict[str, float]] = {
    "digits": {
        "dann": 0.01,
        "equal": 0.01,
        "cmss": 0.01,
        "cmss-weighted": 0.3,
        "cdan": 0.3,
        "conditional": 0.03,
        "conditional-weighted": 0.1,
        "oracle": 0.1,
    },
    "mnist-usps": {
        "dann": 0.01,
        "equal": 0.01,
        "cmss": 0.03,
        "cmss-weighted": 0.06,
        "cdan": 0.1,
        "conditional": 0.1,
        "conditional-weighted": 0.3,
        "oracle": 0.1,
    },
}
"""Chosen for each arm on seed 100 by `validation_accuracy`; see the claim's limits."""

_LOOKS = (
    "clean (all classes), inverted (0 and 1 only), and 0.15 + 0.4 ink + 0.45 coarse noise, inverted (0 and 1 only); "
    "all 16 x 16"
)
_FADED, _DIM = "0.15 + 0.4 ink + 0.45 coarse noise", "0.1 + 0.6 ink + 0.3 coarse noise"
_CONDITIONAL = {"conditional": True}

CMSS_CLAIM = Claim(
    slug="cmss",
    statement=(
        "Three labelled sources are poured together; two of them look otherwise than the target and show 0 and 1 "
        "alone. Not told which image is whose, the curriculum manager gives at least 0.7 of the weight to the "
        "third, in every seed, under the published rule as with the discriminator on the weighted loss. The latter, a "
        "variant of ours, is at least one point above DANN. No accuracy is claimed for the published rule."
    ),
    paper=(
        "Digits-Five, mean accuracy 90.8 % (M3SDA-beta 87.7, source only 80.2); PACS with ResNet-18 89.5 (source only "
        "76.6, DANN 81.5, MDAN 79.6, M3SDA 84.7, JiGen 86.3); DomainNet with ResNet-101 46.5 (source only 32.9, "
        "M3SDA-beta 42.6); Office-Caltech10 97.2."
    ),
    metrics={
        "accuracy": Metric("target accuracy (%)"),
        "weight": Metric("weight on the helpful source", digits=2),
        "selects": Metric("seeds with at least 0.7 of it (share)", digits=2),
        "effective": Metric("effective sample size (of 60)", digits=0),
    },
    arms={
        "source-only": Arm("source only", {"kind": "source-only"}, baseline=True),
        "batch-norm": Arm("source only, target in the batch norm", {"kind": "dann"}, baseline=True),
        "dann": Arm("DANN", {"kind": "dann"}, baseline=True),
        "equal": Arm("three updates, equal weights", {"kind": "cmss", "known": (1 / 3, 1 / 3, 1 / 3)}, baseline=True),
        "cmss": Arm("CMSS, published rule", {"kind": "cmss"}),
        "cmss-weighted": Arm("CMSS, D on weighted loss (ours)", {"kind": "cmss", "weighted_discriminator": True}),
        "cdan": Arm("conditional DANN", {"kind": "dann", **_CONDITIONAL}, baseline=True),
        "conditional": Arm("conditional CMSS, published rule", {"kind": "cmss", **_CONDITIONAL}),
        "conditional-weighted": Arm(
            "conditional CMSS, D on weighted loss (ours)",
            {"kind": "cmss", "weighted_discriminator": True, **_CONDITIONAL},
        ),
        "oracle": Arm(
            "oracle: all weight on the helpful source",
            {"kind": "cmss", "known": (1.0, 0.0, 0.0), "weighted_discriminator": True},
        ),
    },
    expectations=[
        Within("cmss", "selects", at_least=1.0),
        Within("cmss-weighted", "selects", at_least=1.0),
        Beats("cmss-weighted", "dann", by=1.0),
    ],
    data={
        "digits": Data(
            f"scikit-learn's 1,797 digits: three sources of 599 drawings, {_LOOKS}; the target, others, is {_FADED}",
            settings={"target": "faded", "strengths": STRENGTHS["digits"]},
        ),
        "mnist-usps": Data(
            f"MNIST's 10,000 test images as three sources, {_LOOKS}; USPS, as {_DIM}, is the target",
            needs="usps",
            settings={"target": "dim", "strengths": STRENGTHS["mnist-usps"]},
        ),
        "usps-mnist": Data(
            f"USPS as three sources, {_LOOKS}; MNIST, as {_DIM}, is the target: 8,000 images to adapt, 2,000 to test",
            needs="usps",
            settings={"target": "dim", "strengths": STRENGTHS["mnist-usps"]},
        ),
    },
    budgets={
        "smoke": Budget(1, {"steps": 6}),
        "small": Budget(6, {"steps": 220}),
        "full": Budget(20, {"steps": 220}),
    },
    run=run_cmss,
    axes={
        "training loss": Axis("iteration", "sum of the players' losses"),
        "weight on the helpful source": Axis("iteration", "share of the weight"),
    },
    limits=(
        "These are favourable worlds, not typical ones. The embedded one was chosen among five looks of the target, "
        "on seeds 100 to 102 by the labels of the target's training part, because alignment to all sources leads "
        "astray in it. The milder look 0.1 + 0.6 ink + 0.3 noise had come first: there the weighted variant was 1.2 "
        "and 1.7 points above DANN on seeds 0 and 1, which were seen before the choice; striped digits gave 0.5 on "
        "seed 100. The strength of each arm's adversary was chosen on seed 100 by 20 labelled target images a class, "
        "of equals the larger: among 0.003, 0.01, 0.02, 0.03, 0.06, 0.1, 0.3 and 1, for the three conditional arms "
        "among 0.01, 0.03, 0.1, 0.3 and 1. DANN is best at 0.01 on both data, inside the grid. Equal weights take "
        "DANN's strength, the oracle takes 0.1, and usps-mnist takes the strengths of mnist-usps; nothing was chosen "
        "on it. What DANN gains over training on the sources is batch norm that sees the target: with no adversary at "
        "all it is as high. The published rule selects as well, but on MNIST to USPS it is no better than DANN (-0.2 "
        "points over six seeds); our reading is that its discriminator goes on learning to reject sources that nobody "
        "aligns. Conditional DANN is the stronger baseline: on the embedded world both conditional forms of CMSS were "
        "behind it over six seeds, one of them by a seed that fell to 57 %; on MNIST to USPS the published one was "
        "behind and the weighted one 2.6 points ahead. The margin of the claim on MNIST to USPS was 1.9 points; an "
        "earlier trial, whose grid stopped above DANN's optimum, had shown 3.3. Scores are bounded at 2 tanh(z / 2) "
        "before the softmax; unbounded, a few images took all the weight in an earlier trial. The manager detects "
        "looks, not wrong labels: those act through the classification loss, which it does not weight."
    ),
)
