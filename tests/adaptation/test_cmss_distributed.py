"""Two real processes: weights, losses and steps of CMSS are those of one process on the joined batch."""

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from saccade.adaptation import CMSS, DomainBatch, Labelled, Moment, curriculum_weights, source_share
from saccade.ops.collective import mean_over_processes, softmax_over_processes
from tests.adaptation.test_cmss import batch, make, plain_groups

WORLD, STEPS = 2, 3
CASES: dict[str, dict[str, Any]] = {
    "published": {},
    "weighted discriminator": {"weighted_discriminator": True},
    "conditional": {"conditional": True},
    "held": {"held": True},
}


def parts(at: int) -> list[DomainBatch]:
    """What each process is given; their batches differ in size."""
    return [batch((4, 3), 5, seed=2 * at), batch((2, 5), 4, seed=2 * at + 1)]


def build(case: dict[str, Any]) -> CMSS:
    options = dict(case)
    held = options.pop("held", False)
    method = make(weight=0.8, **options)
    if held:
        method.manager.bound, method.manager.min_ess = 3.0, 0.99
    return method


def train(method: CMSS, given: list[DomainBatch]) -> dict[str, Any]:
    """Some iterations; in several processes gradients are averaged as DistributedDataParallel does."""
    groups = plain_groups(method)
    optimizers = {name: torch.optim.SGD(of, lr=0.2) for name, of in groups.items()}
    losses, measures = [], []
    for at, each in enumerate(given):
        for player, loss in method.updates(each, Moment(at + 2, 10)):
            optimizers[player].zero_grad()
            loss.backward()
            if dist.is_initialized():
                for group in groups[player]:
                    for parameter in group["params"]:
                        dist.all_reduce(parameter.grad)
                        parameter.grad /= WORLD
            optimizers[player].step()
            losses.append(loss.detach())
        measures.append(list(method.measures().values()))
    return {"losses": losses, "measures": torch.tensor(measures), "state": method.state_dict()}


def scores() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(n, dtype=torch.float64, generator=generator) * 300 for n in (5, 8)]


def work(rank: int, file: str, out: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    found: dict[str, Any] = {
        name: train(build(case), [parts(at)[rank] for at in range(STEPS)]) for name, case in CASES.items()
    }
    mine = scores()[rank]
    found["softmax"], found["mean"] = softmax_over_processes(mine), mean_over_processes(mine)
    ids = torch.arange(len(mine)) % 2
    found["share"] = source_share(curriculum_weights(mine / 300), ids, 2)
    torch.save(found, f"{out}{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    out = str(folder / "found")
    mp.start_processes(work, args=(str(folder / "meeting"), out), nprocs=WORLD, start_method="spawn")
    return [torch.load(f"{out}{rank}", weights_only=True) for rank in range(WORLD)]


def joined(given: list[DomainBatch]) -> DomainBatch:
    sources = [
        Labelled(torch.cat([part.images for part in pair]), torch.cat([part.labels for part in pair]))
        for pair in zip(*(each.sources for each in given), strict=True)
    ]
    return DomainBatch(sources, [torch.cat([each.targets[0] for each in given])])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_on_the_joined_batch(distributed: list[dict[str, Any]], name: str) -> None:
    expected = train(build(CASES[name]), [joined(parts(at)) for at in range(STEPS)])
    start = build(CASES[name]).state_dict()
    assert any(not torch.allclose(start[key], value, atol=1e-3) for key, value in expected["state"].items())
    for rank in range(WORLD):
        torch.testing.assert_close(distributed[rank][name], expected, atol=1e-10, rtol=1e-8)


def test_weights_are_shared_out_over_both_batches(distributed: list[dict[str, Any]]) -> None:
    both = torch.cat(scores())
    torch.testing.assert_close(torch.cat([found["softmax"] for found in distributed]), both.softmax(0))
    weights = curriculum_weights(both / 300)
    ids = torch.cat([torch.arange(len(part)) % 2 for part in scores()])
    for found in distributed:
        torch.testing.assert_close(found["mean"], both.mean())
        torch.testing.assert_close(found["share"], source_share(weights, ids))
