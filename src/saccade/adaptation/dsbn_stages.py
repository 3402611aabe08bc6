"""The two stages of DSBN as adaptation methods: align with MSTN or CPUA, then teach a fresh network pseudo labels."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.adaptation.dsbn import convert_dsbn, dsbn_layers, merge_domain, use_domain
from saccade.adaptation.dsbn_networks import DSBNNetwork
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Moment, Predictions, Update, check_batch
from saccade.adaptation.mstn import CPUA, MSTN, DomainAlignment, check_source_classes
from saccade.adaptation.networks import Classifier
from saccade.adaptation.schedules import adaptation_factor
from saccade.adaptation.self_training import SelfTrainingLoss
from saccade.checkpoints import load_strict, read_state
from saccade.ops.collective import sum_over_processes
from saccade.surgery import frozen

Network = Classifier | DSBNNetwork
Norm = Literal["domain", "shared", "joint"]


class Seen(NamedTuple):
    """What a network makes of a domain's images: features and logits."""

    features: Float[Tensor, "b d"]
    logits: Float[Tensor, "b k"]


class DSBNMethod(AdaptationMethod, ABC):
    """What both stages share: a classifier that runs each domain with its own branch.

    Domains are numbered sources first, then targets.

    Args:
        classifier: In two halves; its batch norms are converted where they are plain.
        sources: Source domains.
        targets: Target domains.
        norm: `domain`: a branch a domain. The baselines: `shared`, plain batch norms through which the domains go one
            after another; `joint`, plain ones through which they go together.
        backbone_lr: Learning rate of all but the linear layers at the end, as a factor.

    Raises:
        ValueError: Fewer than one domain, a network converted for another number of domains.
    """

    def __init__(self, classifier: Network, sources: int, targets: int, norm: Norm, backbone_lr: float) -> None:
        super().__init__()
        if sources < 1 or targets < 1:
            raise ValueError(f"{sources} sources and {targets} targets are named; at least 1 of each is accepted")
        if norm not in ("domain", "shared", "joint"):
            raise ValueError(f"norm is {norm!r}; domain, shared and joint are accepted")
        prepare(classifier, sources + targets, norm)
        self.classifier = classifier
        self.sources = sources
        self.targets = targets
        self.norm = norm
        self.backbone_lr = backbone_lr
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(classifier.num_classes))
        self._measures: dict[str, float | Tensor] = {}

    def network_groups(self) -> list[dict[str, Any]]:
        """The classifier's parameters: the backbone at `backbone_lr`, linear layers named fc, score or head in full."""
        full: list[nn.Parameter] = []
        backbone: list[nn.Parameter] = []
        for name, parameter in self.classifier.named_parameters():
            at_end = any(word in name for word in ("fc", "score")) or name.startswith("head.")
            (full if at_end else backbone).append(parameter)
        return [{"params": backbone, "lr_mult": self.backbone_lr}, {"params": full}]

    def check(self, batch: DomainBatch, moment: Moment) -> None:
        """Check a batch; at the end of training warn of classes that no source had.

        Raises:
            ValueError: See `check_batch`; or labelled images of the target, which these stages do not use.
        """
        check_batch(batch, self.classifier.num_classes, sources=self.sources, targets=self.targets)
        if batch.labelled_target is not None:
            raise ValueError("the batch has labelled target images; DSBN's stages take none from the target")
        labels = torch.cat([source.labels for source in batch.sources])
        self.seen += torch.bincount(labels, minlength=len(self.seen)).to(self.seen)
        if moment.iteration == moment.total - 1:
            check_source_classes(sum_over_processes(self.seen))

    def run(self, network: nn.Module, images: Float[Tensor, "b c h w"], domain: int) -> Seen:
        """Features and logits by the branch of a domain, where there are branches."""
        with use_domain(network, domain) if dsbn_layers(network) else nullcontext():
            features = network.features(images)  # type: ignore[operator]
            return Seen(features, network.head(features))  # type: ignore[operator]

    def run_batch(self, batch: DomainBatch) -> list[Seen]:
        """Every domain of a batch in training mode: a pass a domain, or one for all where the batch norms are joint."""
        images = [*(source.images for source in batch.sources), *batch.targets]
        if self.norm != "joint":
            return [self.run(self.classifier, part, domain) for domain, part in enumerate(images)]
        together = self.run(self.classifier, torch.cat(images), 0)
        sizes = [len(part) for part in images]
        return [Seen(*parts) for parts in zip(*(tensor.split(sizes) for tensor in together), strict=True)]

    @torch.no_grad()
    def answer(self, network: nn.Module, batch: DomainBatch) -> list[Tensor]:
        """Logits of the targets in evaluation mode, which leaves running statistics alone."""
        with frozen(network):
            return [self.run(network, images, self.sources + t).logits for t, images in enumerate(batch.targets)]

    def predict(self, images: Float[Tensor, "b c h w"], domain: int = -1) -> Predictions:
        """What the branch of a domain says; negative numbers count from the last target.

        Raises:
            ValueError: No such domain.
        """
        count = self.sources + self.targets
        if not -count <= domain < count:
            raise ValueError(f"domain is {domain}; there are {count}, {-count} to {count - 1} are accepted")
        seen = self.run(self.classifier, images, domain % count)
        return Predictions(seen.logits.float().softmax(1), seen.features.float())

    def deploy(self, target: int = 0) -> nn.Module:
        """A plain network for a target domain, images to logits: what inference needs.

        Args:
            target: Which of the targets.

        Returns:
            A copy in evaluation mode, with plain batch norms.

        Raises:
            ValueError: No such target.
        """
        if not 0 <= target < self.targets:
            raise ValueError(f"target is {target}; 0 to {self.targets - 1} are accepted")
        if self.norm != "domain":
            return copy.deepcopy(self.classifier).eval()
        return merge_domain(self.classifier, self.sources + target).eval()

    def teach(self, student: Network, **settings: Any) -> DSBNStage2:
        """A second stage, or a further one, whose teacher is a frozen copy of this network.

        Args:
            student: A fresh network.
            settings: Those of `DSBNStage2`.

        Returns:
            The next stage.
        """
        settings = {"sources": self.sources, "targets": self.targets, "backbone_lr": self.backbone_lr, **settings}
        return DSBNStage2(student, copy.deepcopy(self.classifier), **settings)

    def measures(self) -> dict[str, float]:
        """The terms of the last iteration."""
        return {name: float(value) for name, value in self._measures.items()}


class DSBNStage1(DSBNMethod):
    """The first stage: cross-entropy on the sources and an alignment of the domains, with a branch for each domain.

    The network minimises CE + lambda (L_semantic - A), then the discriminators lambda A on the same features, which by
    default are the logits. Target classes for the centroids are what the network says in evaluation mode.

    Args:
        classifier: See `DSBNMethod`.
        alignment: `MSTN` or `CPUA`; MSTN on the logits with the paper's settings where `None`.
        sources: Source domains.
        targets: Target domains.
        adapt_on: What MSTN aligns: `logits`, or the classifier's `features`. CPUA takes logits.
        warmup: Iterations before lambda grows; it is 0 in them.
        max_step: Iterations over which it grows; all that are left where `None`.
        gamma: How fast it grows.
        norm: See `DSBNMethod`.
        backbone_lr: See `DSBNMethod`.

    Raises:
        ValueError: See `DSBNMethod`; an alignment of other domains, negative or empty schedules.

    Example:
        >>> from saccade.adaptation import DomainBatch, Labelled, Moment, digit_classifier
        >>> stage = DSBNStage1(digit_classifier(), MSTN(10, 10, discriminator="digits"))
        >>> batch = DomainBatch([Labelled(torch.rand(8, 1, 16, 16), torch.arange(8))], [torch.rand(8, 1, 16, 16)])
        >>> [update.player for update in stage.updates(batch, Moment(5, 10))]
        ['network', 'discriminators']
    """

    def __init__(
        self,
        classifier: Network,
        alignment: MSTN | CPUA | None = None,
        sources: int = 1,
        targets: int = 1,
        adapt_on: Literal["logits", "features"] = "logits",
        warmup: int = 0,
        max_step: int | None = None,
        gamma: float = 10.0,
        norm: Norm = "domain",
        backbone_lr: float = 0.1,
    ) -> None:
        super().__init__(classifier, sources, targets, norm, backbone_lr)
        if adapt_on not in ("logits", "features") or (adapt_on == "features" and isinstance(alignment, CPUA)):
            raise ValueError(f"adapt_on is {adapt_on!r}; logits or features is accepted, and logits with CPUA")
        if warmup < 0 or (max_step is not None and max_step < 1):
            raise ValueError(f"warmup is {warmup}, max_step {max_step}; at least 0 and 1 are accepted")
        self.adapt_on = adapt_on
        if alignment is None:
            width = classifier.num_classes if adapt_on == "logits" else classifier.in_features
            alignment = MSTN(classifier.num_classes, width, sources, targets)
        if (alignment.sources, alignment.targets) != (sources, targets):
            raise ValueError(
                f"the alignment is of {alignment.sources} sources and {alignment.targets} targets; "
                f"{sources} and {targets} are wanted"
            )
        self.alignment: DomainAlignment = alignment
        self.warmup = warmup
        self.max_step = max_step
        self.gamma = gamma

    def players(self) -> dict[str, list[dict[str, Any]]]:
        """The network, then the discriminators."""
        return {
            "network": self.network_groups(),
            "discriminators": [{"params": list(self.alignment.discriminators.parameters())}],
        }

    def strength(self, moment: Moment) -> float:
        """Lambda at a moment."""
        steps = self.max_step or max(moment.total - self.warmup, 1)
        return adaptation_factor((moment.iteration - self.warmup) / steps, self.gamma)

    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        """The network's loss, then that of the discriminators on the same features.

        Raises:
            ValueError: See `DSBNMethod.check`.
        """
        self.check(batch, moment)
        lambda_ = self.strength(moment)
        labels = [source.labels for source in batch.sources]
        said = [logits.argmax(1) for logits in self.answer(self.classifier, batch)]
        seen = self.run_batch(batch)
        features = [getattr(part, self.adapt_on) for part in seen]
        sources, targets = features[: self.sources], features[self.sources :]
        class_losses = [
            self.alignment.class_loss(part.logits, y, s)
            for s, (part, y) in enumerate(zip(seen[: self.sources], labels, strict=True))
        ]
        class_loss = torch.stack(class_losses).mean()
        aligned = self.alignment(sources, labels, targets, said)
        self._measures = {
            "lambda": lambda_,
            "class_loss": class_loss.detach(),
            "adversarial": -aligned.generator.detach(),
            "semantic": aligned.semantic.detach(),
        }
        yield Update("network", class_loss + lambda_ * aligned.total)
        yield Update("discriminators", lambda_ * self.alignment.discriminator_loss(sources, targets))


class DSBNStage2(DSBNMethod):
    """The second stage: a fresh network learns source labels and the pseudo labels of a frozen teacher.

    Pseudo labels are those of teacher and student together, where the student's share grows as lambda does; the teacher
    is the network of the first stage, or of another second stage: `stage.teach(fresh_network)` makes the next one.

    Args:
        classifier: The student; see `DSBNMethod`.
        teacher: The network of the stage before, with branches or plain; is frozen.
        sources: Source domains.
        targets: Target domains.
        loss: Threshold and mode of the pseudo labels.
        ramp_target: Weigh the target's loss by lambda; the paper's script does not.
        warmup: Iterations before lambda grows.
        max_step: Iterations over which it grows; all that are left where `None`.
        gamma: How fast it grows.
        teacher_weights: File to load the teacher's weights from: a network's, or a checkpoint of a stage.
        norm: See `DSBNMethod`.
        backbone_lr: See `DSBNMethod`.

    Raises:
        ValueError: See `DSBNMethod`; a teacher with other classes, or that is the student itself.

    Example:
        >>> from saccade.adaptation import DomainBatch, Labelled, Moment, digit_classifier
        >>> stage = DSBNStage1(digit_classifier()).teach(digit_classifier())
        >>> batch = DomainBatch([Labelled(torch.rand(8, 1, 16, 16), torch.arange(8))], [torch.rand(8, 1, 16, 16)])
        >>> [update.player for update in stage.updates(batch, Moment(5, 10))]
        ['network']
    """

    def __init__(
        self,
        classifier: Network,
        teacher: Network,
        sources: int = 1,
        targets: int = 1,
        loss: SelfTrainingLoss | None = None,
        ramp_target: bool = False,
        warmup: int = 0,
        max_step: int | None = None,
        gamma: float = 10.0,
        teacher_weights: str | None = None,
        norm: Norm = "domain",
        backbone_lr: float = 0.1,
    ) -> None:
        super().__init__(classifier, sources, targets, norm, backbone_lr)
        if teacher is classifier or teacher.num_classes != classifier.num_classes:
            raise ValueError(
                f"the teacher has {teacher.num_classes} classes and the student {classifier.num_classes}; "
                "two networks with the same classes are wanted"
            )
        if warmup < 0 or (max_step is not None and max_step < 1):
            raise ValueError(f"warmup is {warmup}, max_step {max_step}; at least 0 and 1 are accepted")
        if teacher_weights is not None:
            prepare(teacher, sources + targets, norm)
            load_teacher(teacher, teacher_weights)
        self.teacher = teacher.requires_grad_(False).eval()
        self.loss = loss or SelfTrainingLoss()
        self.ramp_target = ramp_target
        self.warmup = warmup
        self.max_step = max_step
        self.gamma = gamma

    def train(self, mode: bool = True) -> DSBNStage2:
        """The student's mode; the teacher stays in evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self

    def players(self) -> dict[str, list[dict[str, Any]]]:
        """The student alone."""
        return {"network": self.network_groups()}

    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        """One update: cross-entropy on the sources, and on the target's pseudo labels.

        Raises:
            ValueError: See `DSBNMethod.check`.
        """
        self.check(batch, moment)
        steps = self.max_step or max(moment.total - self.warmup, 1)
        lambda_ = adaptation_factor((moment.iteration - self.warmup) / steps, self.gamma)
        taught = self.answer(self.teacher, batch)
        said = self.answer(self.classifier, batch) if self.loss.mode != "teacher" else taught
        logits = [part.logits for part in self.run_batch(batch)]
        labels = [source.labels for source in batch.sources]
        weight = lambda_ if self.ramp_target else 1.0
        found = self.loss(
            logits[: self.sources], labels, logits[self.sources :], taught, said, share=lambda_, weight=weight
        )
        self._measures = {
            "lambda": lambda_,
            "class_loss": found.source.detach(),
            "target_loss": found.target.detach(),
            "selected": torch.cat(found.selected).float().mean(),
        }
        yield Update("network", found.total)


def prepare(classifier: nn.Module, num_domains: int, norm: Norm) -> None:
    """Convert a network, or check one that is converted.

    Raises:
        ValueError: It has branches for another number of domains, or some where none are wanted.
    """
    layers = dsbn_layers(classifier)
    if norm != "domain":
        if layers:
            raise ValueError(f"the network has domain-specific batch norms; with norm {norm!r} plain ones are wanted")
    elif not layers:
        convert_dsbn(classifier, num_domains)
    elif layers[0].num_domains != num_domains:
        raise ValueError(f"the network has branches for {layers[0].num_domains} domains; {num_domains} are wanted")


def load_teacher(teacher: nn.Module, path: str) -> None:
    """Load a network's file, or the network out of a stage's checkpoint.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It does not fit.
    """
    state = read_state(path)
    prefix = "method.classifier."
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    load_strict(teacher, inner or state)
