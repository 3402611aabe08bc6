"""Two real processes compute the joined batch's losses and gradients, also where one of them selects nothing."""

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from saccade.adaptation import Classifier, CosinePredictor, Labelled, MiSTLoss, decota_losses
from saccade.adaptation.method import DomainBatch, Moment
from saccade.adaptation.mico import draw_lambda
from saccade.adaptation.mist import PseudoLabelling
from saccade.adaptation.semi_supervised import supervised_loss

WORLD, CLASSES, LAM = 2, 3, 0.3
CASES = {"some": (0.85, 0.85), "one process alone": (0.0, 1.0), "none": (1.0, 1.0)}
"""Thresholds of the processes."""
SIZES = ((5, 4, 6), (7, 3, 8))
"""Source, labelled target and unlabelled images of each process."""


def network(seed: int) -> Classifier:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh())
    return Classifier(body, CosinePredictor(8, CLASSES, 16, 0.2), 8, CLASSES).double()


def part(rank: int, case: str) -> tuple[Labelled, Labelled, Tensor, float]:
    generator = torch.Generator().manual_seed(10 + rank)
    source, target, unlabelled = (
        torch.randn(n, 1, 2, 3, dtype=torch.float64, generator=generator) for n in SIZES[rank]
    )
    labels = [torch.randint(CLASSES, (len(x),), generator=generator) for x in (source, target)]
    return Labelled(source, labels[0]), Labelled(target, labels[1]), unlabelled, CASES[case][rank]


def order(count: int) -> Tensor:
    """Partners of a process: its labelled images in turn."""
    return torch.arange(20) % count


def losses(name: str, f: nn.Module, g: nn.Module, data: tuple[Labelled, Labelled, Tensor, float], partners: Any) -> Any:
    source, target, unlabelled, threshold = data
    if name == "decota":
        output = decota_losses(f, g, source, target, unlabelled, threshold, LAM, None, *partners)
        return output.loss_f + 2 * output.loss_g, [output.selected_f, output.selected_g]
    if name == "mist":
        mist = MiSTLoss(threshold)(f, source, target, unlabelled, LAM, None, *partners)
        return mist.loss, [mist.target.selected, mist.source.selected]
    if name == "s+t":
        return supervised_loss(f, [source, target]), []  # type: ignore[arg-type]
    method = PseudoLabelling(f, threshold)  # type: ignore[arg-type]
    (update,) = method.updates(DomainBatch([source], [unlabelled], target), Moment(0, 1))
    return update.loss, []


NAMES = ("decota", "mist", "pseudo", "s+t")


def work(rank: int, file: str, out: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    found: dict[str, Any] = {}
    for case in CASES:
        for name in NAMES:
            f, g = network(0), network(1)
            data = part(rank, case)
            loss, selected = losses(name, f, g, data, (order(SIZES[rank][1]), order(SIZES[rank][0])))
            loss.backward()
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for n in (f, g) for p in n.parameters()]
            for gradient in gradients:  # as DistributedDataParallel does
                dist.all_reduce(gradient)
                gradient /= WORLD
            found[f"{name} {case}"] = (loss.detach(), gradients, selected)
    torch.manual_seed(100 + rank)
    found["lambda"] = draw_lambda(torch.device("cpu"))
    wrapped = DistributedDataParallel(network(0))
    data = part(rank, "some")
    loss, _ = losses("decota", wrapped, network(1), data, (order(SIZES[rank][1]), order(SIZES[rank][0])))
    loss.backward()
    found["ddp"] = [p.grad for p in wrapped.parameters()]
    torch.save(found, f"{out}{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(work, args=(str(folder / "meeting"), str(folder / "found")), nprocs=WORLD, start_method="spawn")
    return [torch.load(f"{folder}/found{rank}.pt", weights_only=True) for rank in range(WORLD)]


def joined(name: str, case: str) -> tuple[Tensor, list[Tensor]]:
    """One process with all images; its partners are those that the two processes took."""
    f, g = network(0), network(1)
    parts = [part(rank, case) for rank in range(WORLD)]
    source, target = (
        Labelled(torch.cat([p[i].images for p in parts]), torch.cat([p[i].labels for p in parts]))  # type: ignore[union-attr]
        for i in (0, 1)
    )
    # a process with a threshold of 1 selects nothing: without its images one threshold serves all
    unlabelled = torch.cat([p[2] for p in parts if p[3] < 1 or case == "none"])
    partners = []
    for kind, teacher in ((1, g if name == "decota" else f), (0, f)):
        counts = [int((teacher(p[2]).softmax(1).amax(1) >= p[3]).sum()) for p in parts]
        first, second = (order(SIZES[rank][kind])[: counts[rank]] for rank in range(WORLD))
        partners.append(torch.cat([first, second + SIZES[0][kind]]))
    loss, _ = losses(name, f, g, (source, target, unlabelled, CASES[case][0]), partners)
    loss.backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for n in (f, g) for p in n.parameters()]
    return loss.detach(), gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_joined_batchs(found: list[dict[str, Any]], name: str, case: str) -> None:
    loss, gradients = joined(name, case)
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in gradients)
    for rank in range(WORLD):
        torch.testing.assert_close(found[rank][f"{name} {case}"][0], loss)
        for ours, wanted in zip(found[rank][f"{name} {case}"][1], gradients, strict=True):
            torch.testing.assert_close(ours, wanted)


def test_the_cases_are_what_they_are_called(found: list[dict[str, Any]]) -> None:
    some, alone, none = (
        [[int(s.sum()) for s in found[rank][f"decota {case}"][2]] for rank in range(WORLD)] for case in CASES
    )
    assert all(0 < count < SIZES[rank][2] for rank in range(WORLD) for count in some[rank])
    assert alone == [[SIZES[0][2]] * 2, [0, 0]]
    assert none == [[0, 0], [0, 0]]


def test_lambda_is_the_same_in_all_processes(found: list[dict[str, Any]]) -> None:
    torch.manual_seed(100)
    assert found[0]["lambda"] == found[1]["lambda"] == float(torch.rand(()))


def test_ddp_follows_the_joined_gradient(found: list[dict[str, Any]]) -> None:
    _, gradients = joined("decota", "some")
    for ours, wanted in zip(found[1]["ddp"], gradients, strict=False):
        torch.testing.assert_close(ours, wanted)
