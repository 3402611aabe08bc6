"""An iteration of DeCoTa, losses and gradients of both networks, against the authors' formulation.

Limit: three forwards and two backwards a network. The authors build graphs for the unlabelled images too, and keep all
graphs of both networks until the end; here pseudo labels need no graph, and a network's graph is gone before the other
one's is built.
"""

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.adaptation import Classifier, DeCoTa, DomainBatch, Labelled, Moment, cosine_classifier
from saccade.bench import Comparison


def authors_iteration(f: Classifier, g: Classifier, batch: DomainBatch, threshold: float = 0.0) -> list[Tensor]:
    """The losses as the authors' loop builds them: every forward with its graph, which is kept after the backward."""
    few, source, unlabelled = batch.labelled_target, batch.sources[0], batch.targets[0]
    if few is None:
        raise ValueError("the batch has no labelled target")
    supervised = F.cross_entropy(f(few.images), few.labels), F.cross_entropy(g(source.images), source.labels)
    answers = [network(unlabelled).softmax(1).max(1) for network in (f, g)]
    lam = float(torch.rand(()))
    losses = []
    for network, own, labelled, (confidence, pseudo), share in (
        (f, supervised[0], few, answers[1], lam),
        (g, supervised[1], source, answers[0], 1 - lam),
    ):
        selected = (confidence >= threshold).nonzero().squeeze(1)
        partners = torch.randperm(len(labelled.labels))[: len(selected)].to(selected.device)
        logits = network(share * labelled.images[partners] + (1 - share) * unlabelled[selected])
        mixed = share * F.cross_entropy(logits, labelled.labels[partners])
        losses.append(own + mixed + (1 - share) * F.cross_entropy(logits, pseudo[selected]))
    for loss in losses:
        loss.backward(retain_graph=True)
    return losses


def iteration(method: DeCoTa, batch: DomainBatch) -> list[Tensor]:
    """The same in ours."""
    losses = []
    for _, loss in method.updates(batch, Moment(0, 1)):
        loss.backward()
        losses.append(loss.detach())
    return losses


def setting(name: str, size: int, count: int, device: str) -> tuple[DeCoTa, DomainBatch]:
    """Two networks and a batch of so many images of each kind."""
    torch.manual_seed(0)
    method = DeCoTa(cosine_classifier(name, 126), cosine_classifier(name, 126), threshold=0.0).to(device)
    images = torch.randn(3, count, 3, size, size, device=device)
    labels = torch.randint(126, (2, count), device=device)
    return method, DomainBatch([Labelled(images[0], labels[0])], [images[1]], Labelled(images[2], labels[1]))


def comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = [("resnet34", 224, 24)] if device == "cuda" else [("resnet18", 64, 24), ("resnet34", 64, 12)]
    for name, size, count in settings:
        method, batch = setting(name, size, count, device)
        twin = copy.deepcopy(method)

        def ours(method: DeCoTa = method, batch: DomainBatch = batch) -> object:
            method.zero_grad()
            return iteration(method, batch)

        def peer(twin: DeCoTa = twin, batch: DomainBatch = batch) -> object:
            twin.zero_grad()
            return authors_iteration(twin.f, twin.g, batch)

        calls: tuple[Callable[[], object], Callable[[], object]] = (ours, peer)
        yield Comparison(
            name=f"an iteration, two {name}, {count} images of each kind at {size} x {size}",
            ours=calls[0],
            peer=calls[1],
            peer_name="the authors' formulation",
            target=1.0,
            memory_target=1.5,
            limit="three forwards and two backwards a network",
        )
