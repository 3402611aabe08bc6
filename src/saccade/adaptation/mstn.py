"""MSTN and CPUA: losses that align domains by an adversary, of which the first stage of DSBN takes one.

Moving semantic transfer (MSTN, Xie et al. 2018) lets a discriminator tell source from target features, which the
network learns to prevent, and pulls the centroids of each class in both domains together. Class prediction uncertainty
alignment (CPUA, arXiv:1804.04448) shows class predictions to the discriminator, and nothing else. Both are written here
as DSBN (arXiv:1906.03950, section 4) uses them: with lambda growing from 0 to 1 the network minimises

    CE(sources) + lambda (L_semantic - A),    A = 0.1 (b(D(f_s), 0) + b(D(f_t), 1)) / 2

and the discriminators, one for each pair of a target and a source, minimise lambda A; b is the binary cross-entropy.
Every mean is that of the joined batch where several processes train.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.adaptation.dsbn_networks import dsbn_discriminator
from saccade.adaptation.method import check_labels, frozen
from saccade.ops.collective import mean_over_processes, sum_over_processes

DiscriminatorKind = Literal["digits", "photos", "cpua"] | Callable[[int], nn.Module]
"""One of the paper's discriminators, see `dsbn_discriminator`; or a function of the width that makes one."""


class MovingCentroids(nn.Module):
    """Class centroids of one domain that follow its batches (MSTN).

    c_k becomes decay * (mean of class k in the batch) + (1 - decay) * c_k; classes that the batch lacks keep theirs.

    Args:
        num_classes: Classes.
        dim: Width of the features.
        decay: Share of the batch.

    Attributes:
        centroids: What is stored, (num_classes, dim), 0 at first, without gradient.

    Raises:
        ValueError: Fewer than one class or dimension, a decay outside (0, 1].

    Example:
        >>> centroids = MovingCentroids(2, 1)
        >>> centroids(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))
        tensor([[0.6000], [0.0000]])
    """

    centroids: Tensor

    def __init__(self, num_classes: int, dim: int, decay: float = 0.3) -> None:
        super().__init__()
        if num_classes < 1 or dim < 1 or not 0.0 < decay <= 1.0:
            raise ValueError(f"num_classes {num_classes} and dim {dim} must be at least 1, decay {decay} in (0, 1]")
        self.decay = decay
        self.register_buffer("centroids", torch.zeros(num_classes, dim))

    def forward(self, features: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> Float[Tensor, "k d"]:
        """The centroids after this batch, which are stored; gradients flow through the batch's means alone.

        Args:
            features: Of one domain.
            labels: Their classes, true or predicted.

        Returns:
            The centroids.

        Raises:
            ValueError: Features of another width, labels outside the classes.
        """
        num_classes, dim = self.centroids.shape
        if features.shape[1:] != (dim,):
            raise ValueError(f"features are {tuple(features.shape)}; (b, {dim}) is accepted")
        if not torch.compiler.is_compiling():
            check_labels(labels, len(features), num_classes)
        with torch.autocast(features.device.type, enabled=False):  # sums over a batch want their digits
            features = features.to(self.centroids.dtype)
            one_hot = F.one_hot(labels.long(), num_classes).to(features.dtype)
            sums = one_hot.T @ torch.cat([features, torch.ones_like(features[:, :1])], 1)
        sums = sum_over_processes(sums)
        counts = sums[:, -1:].detach()
        means = sums[:, :-1] / counts.clamp(min=1)
        moved = torch.where(counts > 0, self.decay * means + (1 - self.decay) * self.centroids, self.centroids)
        self.centroids.copy_(moved.detach())
        return moved


class Alignment(NamedTuple):
    """What an alignment adds to the network's loss, before lambda.

    Args:
        generator: -A: the network deceives the discriminators.
        semantic: The distance of the centroids, times its weight; 0 where there are none.
    """

    generator: Float[Tensor, ""]
    semantic: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Their sum."""
        return self.generator + self.semantic


class DomainAlignment(nn.Module, ABC):
    """An adversary between every target and every source: discriminator t * sources + s for target t and source s.

    Args:
        discriminators: One a pair.
        sources: Source domains.
        targets: Target domains.
        adversarial_weight: The factor 0.1 of A.

    Raises:
        ValueError: Fewer than one domain.
    """

    def __init__(
        self, discriminators: Sequence[nn.Module], sources: int, targets: int, adversarial_weight: float
    ) -> None:
        super().__init__()
        self.sources = sources
        self.targets = targets
        self.adversarial_weight = adversarial_weight
        self.discriminators = nn.ModuleList(discriminators)

    @abstractmethod
    def forward(
        self,
        sources: Sequence[Float[Tensor, "_ d"]],
        source_labels: Sequence[Int[Tensor, " _"]],
        targets: Sequence[Float[Tensor, "_ d"]],
        target_labels: Sequence[Int[Tensor, " _"]],
    ) -> Alignment:
        """The alignment's loss of the network; the discriminators get no gradient.

        Args:
            sources: Features of each source domain.
            source_labels: Their classes.
            targets: Features of each target domain.
            target_labels: Their predicted classes.

        Returns:
            Both terms.
        """

    def class_loss(self, logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], source: int) -> Float[Tensor, ""]:
        """Cross-entropy of a source domain, the mean over the joined batch."""
        check_labels(labels, len(logits), logits.shape[1])
        return mean_over_processes(F.cross_entropy(logits, labels, reduction="none"))

    def adversarial(
        self,
        sources: Sequence[Float[Tensor, "_ d"]],
        targets: Sequence[Float[Tensor, "_ d"]],
        source_weights: Sequence[Float[Tensor, " _"]] | None = None,
        target_weights: Sequence[Float[Tensor, " _"]] | None = None,
    ) -> Float[Tensor, ""]:
        """A: the discriminators' loss, the mean over pairs; give detached features to train the discriminators.

        Args:
            sources: What the discriminators see of each source domain.
            targets: And of each target domain.
            source_weights: Factors of the samples.
            target_weights: The same for targets.

        Returns:
            A.

        Raises:
            ValueError: Another number of domains.
        """
        if (len(sources), len(targets)) != (self.sources, self.targets):
            raise ValueError(
                f"features of {len(sources)} sources and {len(targets)} targets came; "
                f"{self.sources} and {self.targets} are wanted"
            )
        losses = []
        for t, s in product(range(self.targets), range(self.sources)):
            discriminator = self.discriminators[t * self.sources + s]
            for features, label, weights in (
                (sources[s], 0.0, source_weights[s] if source_weights else None),
                (targets[t], 1.0, target_weights[t] if target_weights else None),
            ):
                logits = discriminator(features).squeeze(1)
                loss = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")
                losses.append(mean_over_processes(loss if weights is None else loss * weights))
        return self.adversarial_weight * torch.stack(losses).mean()

    def discriminator_loss(
        self,
        sources: Sequence[Float[Tensor, "_ d"]],
        targets: Sequence[Float[Tensor, "_ d"]],
    ) -> Float[Tensor, ""]:
        """A of features that are detached here: what the discriminators minimise, times lambda."""
        return self.adversarial([x.detach() for x in sources], [x.detach() for x in targets])


class MSTN(DomainAlignment):
    """Moving semantic transfer: the adversary, and centroids of each class and domain that are pulled together.

    Args:
        num_classes: Classes.
        dim: Width of the features; the classes where the features are the logits.
        sources: Source domains.
        targets: Target domains.
        decay: Share of the batch in the centroids.
        adversarial_weight: Of the adversary.
        semantic_weight: Of the distance of centroids.
        discriminator: See `dsbn_discriminator`; or a function that makes one of the width that it sees.

    Raises:
        ValueError: Fewer than one domain.

    Example:
        >>> loss = MSTN(3, 3, discriminator="digits")
        >>> x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
        >>> loss([x], [y], [x + 1], [y]).total.shape
        torch.Size([])
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        sources: int = 1,
        targets: int = 1,
        decay: float = 0.3,
        adversarial_weight: float = 0.1,
        semantic_weight: float = 1.0,
        discriminator: DiscriminatorKind = "photos",
    ) -> None:
        super().__init__(
            discriminator_of_each_pair(dim, sources, targets, discriminator), sources, targets, adversarial_weight
        )
        self.semantic_weight = semantic_weight
        self.source_centroids = nn.ModuleList(MovingCentroids(num_classes, dim, decay) for _ in range(sources))
        self.target_centroids = nn.ModuleList(MovingCentroids(num_classes, dim, decay) for _ in range(targets))

    def forward(
        self,
        sources: Sequence[Float[Tensor, "_ d"]],
        source_labels: Sequence[Int[Tensor, " _"]],
        targets: Sequence[Float[Tensor, "_ d"]],
        target_labels: Sequence[Int[Tensor, " _"]],
    ) -> Alignment:
        """See `DomainAlignment.forward`; the stored centroids move on."""
        with frozen(self.discriminators):
            generator = -self.adversarial(sources, targets)
        of_sources, of_targets = (
            [centroids(x, y) for centroids, x, y in zip(modules, features, labels, strict=True)]
            for modules, features, labels in (
                (self.source_centroids, sources, source_labels),
                (self.target_centroids, targets, target_labels),
            )
        )
        distances = [F.mse_loss(s, t) for t, s in product(of_targets, of_sources)]
        return Alignment(generator, self.semantic_weight * torch.stack(distances).mean())


class CPUA(DomainAlignment):
    """Class prediction uncertainty alignment: the adversary sees the class predictions, as logits.

    Args:
        num_classes: Classes.
        sources: Source domains.
        targets: Target domains.
        adversarial_weight: Of the adversary.
        class_balance: Weight the samples of class y, true or predicted, by max_k p(k) / p(y), as CPUA's paper does and
            DSBN's code does not; p counts the classes of each domain as they come by in training.
        discriminator: See `dsbn_discriminator`; or a function that makes one of the width that it sees.

    Raises:
        ValueError: Fewer than one domain.

    Example:
        >>> x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
        >>> CPUA(3)([x], [y], [x + 1], [y]).semantic
        tensor(0.)
    """

    source_counts: Tensor
    target_counts: Tensor

    def __init__(
        self,
        num_classes: int,
        sources: int = 1,
        targets: int = 1,
        adversarial_weight: float = 0.1,
        class_balance: bool = False,
        discriminator: DiscriminatorKind = "cpua",
    ) -> None:
        super().__init__(
            discriminator_of_each_pair(num_classes, sources, targets, discriminator),
            sources,
            targets,
            adversarial_weight,
        )
        self.class_balance = class_balance
        if class_balance:
            self.register_buffer("source_counts", torch.zeros(sources, num_classes))
            self.register_buffer("target_counts", torch.zeros(targets, num_classes))
        self._weights: tuple[list[Tensor], list[Tensor]] | None = None

    def forward(
        self,
        sources: Sequence[Float[Tensor, "_ d"]],
        source_labels: Sequence[Int[Tensor, " _"]],
        targets: Sequence[Float[Tensor, "_ d"]],
        target_labels: Sequence[Int[Tensor, " _"]],
    ) -> Alignment:
        """See `DomainAlignment.forward`; with `class_balance` the counts of classes move on."""
        if self.class_balance:
            self._weights = (
                [balance(row, y) for row, y in zip(self.source_counts, source_labels, strict=True)],
                [balance(row, y) for row, y in zip(self.target_counts, target_labels, strict=True)],
            )
        with frozen(self.discriminators):
            generator = -self.adversarial(sources, targets, *(self._weights or (None, None)))
        return Alignment(generator, generator.new_zeros(()))

    def class_loss(self, logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], source: int) -> Float[Tensor, ""]:
        """Cross-entropy of a source domain, by the weights of the classes seen before this batch."""
        check_labels(labels, len(logits), logits.shape[1])
        loss = F.cross_entropy(logits, labels, reduction="none")
        return mean_over_processes(
            loss * class_weights(self.source_counts[source])[labels] if self.class_balance else loss
        )

    def discriminator_loss(
        self,
        sources: Sequence[Float[Tensor, "_ d"]],
        targets: Sequence[Float[Tensor, "_ d"]],
    ) -> Float[Tensor, ""]:
        """See `DomainAlignment.discriminator_loss`; the weights are those of the last `forward`."""
        weights = self._weights if self.class_balance and self._weights else (None, None)
        return self.adversarial([x.detach() for x in sources], [x.detach() for x in targets], *weights)


def class_weights(counts: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """max_k p(k) / p(k) of each class; 1 for classes that were not seen.

    Args:
        counts: Samples of each class.

    Returns:
        One weight a class.

    Example:
        >>> class_weights(torch.tensor([4.0, 2.0, 0.0]))
        tensor([1., 2., 1.])
    """
    return torch.where(counts > 0, counts.max() / counts.clamp(min=1), torch.ones_like(counts))


def balance(counts: Float[Tensor, " k"], labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Count the joined batch's labels, in place, and give each sample the weight of its class."""
    new = torch.bincount(labels, minlength=len(counts)).to(counts.dtype)
    counts.add_(sum_over_processes(new))
    return class_weights(counts)[labels]


def discriminator_of_each_pair(
    dim: int, sources: int, targets: int, discriminator: DiscriminatorKind
) -> list[nn.Module]:
    """One discriminator for every pair of a target and a source, each with its own start.

    Args:
        dim: Width of what it sees.
        sources: Source domains.
        targets: Target domains.
        discriminator: Its kind, or what makes one.

    Returns:
        targets * sources modules.

    Raises:
        ValueError: Fewer than one domain.
    """
    if sources < 1 or targets < 1:
        raise ValueError(f"{sources} sources and {targets} targets are named; at least 1 of each is accepted")
    if callable(discriminator):
        return [discriminator(dim) for _ in range(sources * targets)]
    return [dsbn_discriminator(dim, discriminator) for _ in range(sources * targets)]


def check_source_classes(seen: Float[Tensor, " k"]) -> None:
    """Warn of classes that no source image has: a network cannot find them in the target.

    Args:
        seen: Source images of each class.

    Example:
        >>> check_source_classes(torch.tensor([3.0, 1.0]))
    """
    absent = (seen == 0).nonzero().flatten().tolist()
    if absent:
        named = ", ".join(map(str, cast(list[int], absent[:8]))) + (" ..." if len(absent) > 8 else "")
        warnings.warn(
            f"no source image has class {named}: {len(absent)} of {len(seen)} classes cannot be learnt", stacklevel=2
        )
