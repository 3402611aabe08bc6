"""An iteration of CMSS against its plain formulation, three passes of everything, and beside one of DANN."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation import CMSS, DomainBatch, Labelled, Moment, Update
from saccade.adaptation.baselines import DomainAdversarial
from saccade.adaptation.cmss_networks import digits_five_classifier, digits_five_discriminator, digits_five_manager
from saccade.adaptation.method import AdaptationMethod
from saccade.adaptation.schedules import adaptation_factor
from saccade.bench import Comparison

MOMENT = Moment(50, 100)
SOURCES, EACH = 4, 8


def batch(each: int = EACH, dtype: torch.dtype = torch.float32, device: str = "cpu") -> DomainBatch:
    """Four sources and a target of 32 x 32 images."""
    torch.manual_seed(0)

    def images() -> Tensor:
        return torch.randn(each, 3, 32, 32, dtype=dtype, device=device)

    return DomainBatch([Labelled(images(), torch.arange(each, device=device) % 10) for _ in range(SOURCES)], [images()])


def cmss(dtype: torch.dtype = torch.float32, device: str = "cpu") -> CMSS:
    """With the networks for Digits-Five."""
    torch.manual_seed(0)
    method = CMSS(digits_five_classifier(), digits_five_manager(), digits_five_discriminator())
    return method.to(device, dtype)


def plain_updates(method: CMSS, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
    """As one writes the three updates down: each computes what it needs, logarithms are taken of sigmoids."""
    strength = method.weight * adaptation_factor(moment.progress, method.gamma)
    source = torch.cat([part.images for part in batch.sources])
    labels = torch.cat([part.labels for part in batch.sources])
    images = torch.cat([source, *batch.targets])

    def answers(features: Tensor) -> tuple[Tensor, Tensor]:
        parts = features[: len(source)], features[len(source) :]
        on_source, on_target = (method.discriminator(part).sigmoid().squeeze(1) for part in parts)
        return -on_source.log(), -(1 - on_target).log()

    def weights() -> Tensor:
        return method.manager.scores(source).softmax(0)

    with torch.no_grad():
        features = method.classifier.features(images)
    on_source, on_target = answers(features)
    yield Update("manager", -strength * ((weights() * on_source).sum() + on_target.mean()))

    with torch.no_grad():
        features = method.classifier.features(images)
    on_source, on_target = answers(features)
    yield Update("discriminator", strength * (on_source.mean() + on_target.mean()))

    features = method.classifier.features(images)
    on_source, on_target = answers(features)
    game = (weights().detach() * on_source).sum() + on_target.mean()
    logits = method.classifier.head(features[: len(source)])
    yield Update("classifier", F.cross_entropy(logits, labels) - strength * game)


def iteration(
    method: AdaptationMethod, given: DomainBatch, updates: Callable[..., Iterator[Update]] | None = None
) -> Callable[[], list[Tensor]]:
    """A whole iteration, the optimisers' steps with it; the rate is 0, so that each call computes the same.

    Args:
        method: Whose players step.
        given: The batch.
        updates: Their losses; the method's own where `None`.

    Returns:
        A function that gives the losses.
    """
    optimizers = {
        player: torch.optim.SGD([{"params": group["params"]} for group in groups], lr=0.0, momentum=0.9)
        for player, groups in method.players().items()
    }

    def step() -> list[Tensor]:
        losses = []
        for player, loss in method.updates(given, MOMENT) if updates is None else updates(method, given, MOMENT):
            optimizers[player].zero_grad()
            loss.backward()
            optimizers[player].step()
            losses.append(loss.detach())
        return losses

    return step


def comparisons() -> Iterator[Comparison]:
    """The plain formulation, then DANN."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = batch(device=device)
    what = f"{SOURCES} sources and a target, {EACH} images of 32 x 32 each, networks for Digits-Five"
    ours, plain = cmss(device=device), cmss(device=device)
    yield Comparison(
        name=f"an iteration of CMSS: {what}",
        ours=iteration(ours, given),
        peer=iteration(plain, given, plain_updates),
        peer_name="the plain formulation, three passes of all networks",
        target=1.4,
        limit="operations: 0.08 G multiply-adds an image and pass of F; ours 1 forward and 1 backward, plain 3 and 1",
    )
    del plain
    torch.manual_seed(0)
    dann = DomainAdversarial(digits_five_classifier(), digits_five_discriminator(), weight=1.0).to(device)
    yield Comparison(
        name=f"what the curriculum costs: an iteration of CMSS beside one of DANN, {what}",
        ours=iteration(ours, given),
        peer=iteration(dann, given),
        peer_name="DANN with the same networks, which computes less",
        target=0.9,
        limit="the manager's two passes over the source images and the discriminator's second over all",
    )
