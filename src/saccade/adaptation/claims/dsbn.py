"""The claim of domain-specific batch norm."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from saccade.adaptation.adversary import DomainDiscriminator
from saccade.adaptation.baselines import DomainAdversarial, SourceOnly
from saccade.adaptation.claims.world import accuracy, digit_data, domains_of, shown, train
from saccade.adaptation.digits import DigitDomains
from saccade.adaptation.dsbn import convert_dsbn
from saccade.adaptation.dsbn_stages import DSBNStage1, DSBNStage2, Norm
from saccade.adaptation.method import AdaptationMethod
from saccade.adaptation.mstn import MSTN
from saccade.adaptation.networks import Classifier
from saccade.adaptation.self_training import SelfTrainingLoss
from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Metric, Outcome, Within
from saccade.surgery import recalibrate_bn


def lenet() -> Classifier:
    """A LeNet for 16 x 16 pixels, 20 and 40 channels and 128 features, with batch norm after every layer."""
    layers: list[nn.Module] = []
    for before, after in ((1, 20), (20, 40)):
        layers += [
            nn.Conv2d(before, after, 5, padding=2, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    layers += [nn.Flatten(), nn.Linear(640, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()]
    return Classifier(nn.Sequential(*layers), nn.Linear(128, 10), 128, 10)


def small_discriminator(width: int) -> DomainDiscriminator:
    """128-128-1, the same for all arms."""
    return DomainDiscriminator(width, 128, 0.0)


def mstn(norm: Norm) -> DSBNStage1:
    """MSTN on the logits; the network starts from the generator as every arm's does."""
    return DSBNStage1(lenet(), MSTN(10, 10, discriminator=small_discriminator), norm=norm, backbone_lr=1.0)


def second_stage(cell: Cell, data: DigitDomains) -> tuple[DSBNStage2, float]:
    """A fresh network, taught by the seed's first stage, and that teacher's accuracy."""

    def first() -> dict[str, Tensor]:
        torch.manual_seed(cell.seed)
        method = mstn("domain")
        train(cell, method, data)
        score = torch.tensor(accuracy(method, data.test_images(), cell.device), dtype=torch.float64)
        return {
            **{f"network.{key}": value.cpu() for key, value in method.classifier.state_dict().items()},
            "score": score,
        }

    stored = cell.once("stage 1", first)
    teacher = lenet()
    convert_dsbn(teacher, 2)
    teacher.load_state_dict({key[8:]: value for key, value in stored.items() if key.startswith("network.")})
    torch.manual_seed(cell.seed + 1)  # a start of its own
    loss = SelfTrainingLoss(mode="teacher")
    return DSBNStage2(lenet(), teacher, loss=loss, backbone_lr=1.0), float(stored["score"])


def run_dsbn(cell: Cell) -> Outcome:
    """Train one arm; the target's labels are read at the end, for its accuracy, and nowhere else."""
    data = domains_of(cell, cell.settings["steps"])
    taught_by: float | None = None
    method: AdaptationMethod
    kind = cell.options["method"]
    torch.manual_seed(cell.seed)
    if kind == "source":
        method = SourceOnly(lenet())
    elif kind == "dann":
        classifier = lenet()
        method = DomainAdversarial(classifier, small_discriminator(classifier.in_features))
    elif kind == "stage2":
        method, taught_by = second_stage(cell, data)
    else:
        method = mstn(cell.options["norm"])
    curve = train(cell, method, data)
    if cell.options.get("recalibrate"):
        images = data.train_images()[1][0].load(torch.arange(len(data.train_images()[1][0]))).images.to(cell.device)
        recalibrate_bn(method.classifier, images.split(64))
    score = accuracy(method, data.test_images(), cell.device)
    gain = 0.0 if taught_by is None else score - taught_by
    drawn = shown(method, data, cell.device) if cell.seed == 0 else {}  # a map takes longer than the training
    pictures = {f"{caption}: {cell.arm}": picture for caption, picture in drawn.items()}
    return Outcome({"accuracy": score, "gain": gain}, {"training loss": curve}, pictures)


_CHANGED = ("digits", "mnist-usps-look")
_PLAIN = ("mnist-usps", "usps-mnist")
_DATA = digit_data()

DSBN = Claim(
    slug="dsbn",
    statement=(
        "Between digits that differ in their look, MSTN with domain-specific batch norm is at least 8 points more "
        "accurate on the target than MSTN whose batch norms serve one domain after the other, and more accurate than "
        "MSTN whose batch norms see both together; the second stage, a fresh network taught by the first, is not worse "
        "than it by more than one point."
    ),
    paper=(
        "VisDA-C, ResNet-101, mean accuracy over classes: source only 52.4, MSTN with shared batch norm 65.0, with "
        "DSBN in two stages 80.2; Office-31, ResNet-50: 86.5 and 88.3 (figures from memory)."
    ),
    metrics={
        "accuracy": Metric("accuracy on the target (%)"),
        "gain": Metric("points over its teacher (0: no teacher)"),
    },
    arms={
        "source": Arm("source only", {"method": "source"}, baseline=True),
        "dann": Arm("DANN", {"method": "dann"}, baseline=True),
        "mstn": Arm("MSTN, shared batch norm, a pass a domain", {"method": "mstn", "norm": "shared"}, baseline=True),
        "mstn-joint": Arm(
            "MSTN, shared batch norm, domains in one pass", {"method": "mstn", "norm": "joint"}, baseline=True
        ),
        "mstn-recalibrated": Arm(
            "MSTN, a pass a domain, statistics taken anew on the target",
            {"method": "mstn", "norm": "shared", "recalibrate": True},
            baseline=True,
        ),
        "dsbn": Arm("MSTN + DSBN (stage 1)", {"method": "mstn", "norm": "domain"}),
        "dsbn-stage2": Arm("DSBN, stage 2", {"method": "stage2"}),
    },
    expectations=[
        Beats("dsbn", "mstn", by=8.0, on=_CHANGED),
        Beats("dsbn", "mstn-joint", by=5.0, on=("digits",)),
        Beats("dsbn", "mstn-joint", on=("mnist-usps-look",)),
        Beats("dsbn", "mstn", on=_PLAIN),
        Within("dsbn-stage2", "gain", at_least=-1.0),
    ],
    data={
        **_DATA,
        "digits": replace(
            _DATA["digits"],
            seeds=10,
            note="The margin over domains in one pass was set after seeds 0 to 4 had been seen; 5 to 9 are fresh.",
        ),
        "mnist-usps-look": replace(
            _DATA["mnist-usps-look"],
            seeds=10,
            note="Five seeds had left the comparison with domains in one pass open, where two of five runs collapsed.",
        ),
    },
    budgets={
        "smoke": Budget(1, {"steps": 6}),
        "small": Budget(5, {"steps": 160}),
        "full": Budget(10, {"steps": 1000}),
    },
    run=run_dsbn,
    axes={"training loss": Axis("iteration", "sum of the players' losses")},
    limits=(
        "Network, steps and rates were fixed beforehand, the same for all arms. Runs with seeds 100 to 104 told which "
        "margins to expect (+37 and +8.8 points on digits), on the same test images in other looks. Nearly all of the "
        "gap to shared batch norms that serve one domain after the other comes from testing: they learn by each "
        "domain's own statistics, and are tested by running ones that mix both. Where these are taken anew on images "
        "of the target, after training, that baseline comes within about two points of DSBN on digits, better than "
        "batch norms that see both domains together: here what counts is whose statistics are used, more than weights "
        "and biases of their own. CPUA instead of MSTN gave 92 % with DSBN and 74 % with shared batch norm (seeds 102 "
        "to 104). Where looks hardly differ (MNIST and USPS as they are) there is little to gain, and no margin is "
        "expected."
    ),
)
