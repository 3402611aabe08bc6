"""What every method of domain adaptation is: players with losses, called in turn, over batches of several domains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass
class Labelled:
    """Images of one domain with their classes.

    Args:
        images: As the network takes them.
        labels: 0 to the number of classes - 1.
    """

    images: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"]


@dataclass
class DomainBatch:
    """What one iteration sees. Domains are numbered sources first, then targets.

    Args:
        sources: One labelled batch a source domain.
        targets: One batch without labels a target domain.
        labelled_target: The few labelled images of the target, where adaptation is semi-supervised.
    """

    sources: list[Labelled]
    targets: list[Float[Tensor, "b c h w"]]
    labelled_target: Labelled | None = None

    @property
    def labelled(self) -> list[Labelled]:
        """All that is labelled: the sources, then the target's few where there are any."""
        return [*self.sources, *([self.labelled_target] if self.labelled_target else [])]


@dataclass(frozen=True)
class Moment:
    """Where training is.

    Args:
        iteration: Counted from 0.
        total: Iterations in all.

    Example:
        >>> Moment(50, 200).progress
        0.25
    """

    iteration: int
    total: int

    @property
    def progress(self) -> float:
        """The share that is done, in [0, 1]."""
        return min(self.iteration / max(self.total, 1), 1.0)


class Update(NamedTuple):
    """One player's turn: `loss` is differentiated with respect to its parameters, which then take a step."""

    player: str
    loss: Tensor


@dataclass
class Predictions:
    """What a method says about images of the target.

    Args:
        probabilities: Of each class; rows sum to 1.
        embeddings: The features that the answer was read from, for pictures.
    """

    probabilities: Float[Tensor, "b k"]
    embeddings: Float[Tensor, "b d"]

    @property
    def labels(self) -> Int[Tensor, " b"]:
        """The likeliest class of each image."""
        return self.probabilities.argmax(1)

    @property
    def confidences(self) -> Float[Tensor, " b"]:
        """Its probability."""
        return self.probabilities.amax(1)


class AdaptationMethod(nn.Module, ABC):
    """A way to train a classifier for a target domain whose labels are not known.

    A method says who is trained (`players`), and in `updates` what each minimises, in the order in which they take
    their steps. `updates` is a generator: what it computes after a `yield` sees the parameters as that update left
    them.
    """

    @abstractmethod
    def players(self) -> dict[str, list[dict[str, Any]]]:
        """Each player's name and its parameter groups; a group may have a factor `lr_mult` of the learning rate."""

    @abstractmethod
    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        """The losses of one iteration, in the order of their steps."""

    @abstractmethod
    def predict(self, images: Float[Tensor, "b c h w"], domain: int = -1) -> Predictions:
        """What the trained network says about images of a domain; the last one is a target, and the default.

        The network is expected in evaluation mode.
        """

    def measures(self) -> dict[str, float]:
        """What the last iteration wants logged beside its losses."""
        return {}


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, what is computed by these modules has no gradient with respect to their parameters.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 1)
        >>> with frozen(layer):
        ...     out = layer(torch.zeros(1, 2, requires_grad=True))
        >>> out.sum().backward()
        >>> layer.weight.grad is None
        True
    """
    trained = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def check_batch(
    batch: DomainBatch, num_classes: int, *, sources: int | None = None, targets: int | None = None
) -> None:
    """Check what an iteration is given.

    Args:
        batch: The batch.
        num_classes: Classes that the network knows.
        sources: How many source domains are wanted; at least one where `None`.
        targets: How many target domains are wanted; at least one where `None`.

    Raises:
        ValueError: Another number of domains, a domain without images, images of different shapes, labels outside the
            classes.
    """
    for what, found, wanted in (("source", batch.sources, sources), ("target", batch.targets, targets)):
        if wanted is not None and len(found) != wanted:
            raise ValueError(f"the batch has {len(found)} {what} domains; {wanted} are wanted")
        if not found:
            raise ValueError(f"the batch has no {what} domain; at least one is wanted")
    images = [*(part.images for part in batch.labelled), *batch.targets]
    if any(len(part) == 0 for part in images):
        raise ValueError(f"a domain of the batch has no images: {[len(part) for part in images]}")
    if len({part.shape[1:] for part in images}) > 1:
        raise ValueError(f"the domains' images differ in shape: {', '.join(str(tuple(part.shape)) for part in images)}")
    for part in batch.labelled:
        check_labels(part.labels, len(part.images), num_classes)


def check_labels(labels: Tensor, count: int, num_classes: int) -> None:
    """Check classes.

    Raises:
        ValueError: Not one integer an image, or one outside [0, num_classes).
    """
    if labels.shape != (count,) or labels.is_floating_point():
        raise ValueError(
            f"labels are {tuple(labels.shape)} of {labels.dtype} for {count} images; one integer each is wanted"
        )
    if count and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(
            f"labels go from {int(labels.min())} to {int(labels.max())}; 0 to {num_classes - 1} are accepted"
        )
