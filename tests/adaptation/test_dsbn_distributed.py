"""Two real processes train DSBN as one process with the joined batch does: losses, gradients, statistics, centroids."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from saccade.adaptation import DomainBatch, DomainDiscriminator, Labelled, Moment, digit_classifier
from saccade.adaptation.dsbn import DomainSpecificBatchNorm2d, convert_dsbn, use_domain
from saccade.adaptation.dsbn_stages import DSBNMethod, DSBNStage1
from saccade.adaptation.mstn import CPUA, MSTN
from saccade.adaptation.self_training import SelfTrainingLoss

WORLD, STEPS, K = 2, 3, 4
SIZES = {"even": (6, 6), "uneven": (8, 3)}


def method(name: str, lightning: bool = False, sync: bool = True) -> DSBNMethod:
    torch.manual_seed(0)

    def network() -> nn.Module:
        net = convert_dsbn(digit_classifier(side=8, num_classes=K, features=5), 2, sync=sync and not lightning)
        return nn.SyncBatchNorm.convert_sync_batchnorm(net) if lightning else net

    def small(dim: int) -> nn.Module:
        return DomainDiscriminator(dim, 8, 0.0)

    if name == "cpua":
        made: DSBNMethod = DSBNStage1(network(), CPUA(K, class_balance=True, discriminator=small))
    else:
        made = DSBNStage1(network(), MSTN(K, K, discriminator=small))
    if name == "stage2":
        made = made.teach(network(), loss=SelfTrainingLoss(0.3))
    return made.double()


def batches(sizes: tuple[int, int]) -> list[list[DomainBatch]]:
    """One for each step and rank."""
    generator = torch.Generator().manual_seed(1)

    def images(size: int, shift: float) -> Tensor:
        return torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64) + shift

    return [
        [
            DomainBatch([Labelled(images(size, 0), torch.arange(size) % K)], [images(size + rank, 1)])
            for rank, size in enumerate(sizes)
        ]
        for _ in range(STEPS)
    ]


def train(made: DSBNMethod, data: list[DomainBatch]) -> dict[str, Any]:
    """Plain gradient steps, with gradients averaged over processes as DistributedDataParallel does."""
    players = {name: [p for group in groups for p in group["params"]] for name, groups in made.players().items()}
    losses, gradients = [], {}
    made.train()
    for step, batch in enumerate(data):
        for player, loss in made.updates(batch, Moment(step + 3, STEPS + 3)):
            grads = torch.autograd.grad(loss, players[player], allow_unused=True)
            losses.append(loss.detach())
            for number, (parameter, grad) in enumerate(zip(players[player], grads, strict=True)):
                grad = torch.zeros_like(parameter) if grad is None else grad
                if dist.is_initialized():
                    dist.all_reduce(grad)
                    grad = grad / WORLD
                gradients[f"{step} {player} {number}"] = grad
                with torch.no_grad():
                    parameter.sub_(0.1 * grad)
    return {"losses": torch.stack(losses), "gradients": gradients, "state": made.state_dict()}


def mixed(layer: nn.Module, x: Tensor, of: Tensor) -> dict[str, Tensor]:
    """A mixed batch through one layer, and its gradients."""
    x = x.clone().requires_grad_()
    out = layer(x, of)
    (out * torch.linspace(-1, 1, x[0].numel()).double().view(x.shape[1:]) * x.detach()).sum().backward()
    grads = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return {"out": out.detach(), "x": x.grad, **layer.state_dict(), **{f"grad {n}": g for n, g in grads.items()}}


def mixed_data() -> list[tuple[Tensor, Tensor]]:
    """Rank 1 has nothing of domain 2, rank 0 a single image, nobody has anything of domain 0."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(9, 3, 2, 1, generator=generator, dtype=torch.float64)
    return [(x[:4], torch.tensor([1, 2, 3, 1])), (x[4:], torch.tensor([3, 1, 3, 1, 1]))]


CASES = [
    (name, sizes, lightning)
    for name in ("mstn", "cpua", "stage2")
    for sizes in SIZES
    for lightning in (False, True)
    if name == "mstn" or (sizes == "uneven" and not lightning)
]


def work(rank: int, file: str, out: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    found: dict[Any, Any] = {
        case: train(method(case[0], case[2]), [step[rank] for step in batches(SIZES[case[1]])]) for case in CASES
    }
    found["apart"] = train(method("mstn", sync=False), [step[rank] for step in batches(SIZES["uneven"])])
    layer = convert_dsbn(nn.Sequential(nn.BatchNorm2d(3)), 4, sync=True).double()[0]
    found["mixed"] = mixed(layer, *mixed_data()[rank])
    whole = nn.Sequential(DomainSpecificBatchNorm2d(3, 4, sync=True)).double()
    with use_domain(whole, mixed_data()[rank][1]):
        found["context"] = whole(mixed_data()[rank][0]).detach()
    one = DomainSpecificBatchNorm2d(3, 2, sync=True).double()
    try:
        one(mixed_data()[0][0][: 1 - rank, :, :1], 0)  # one value in all
    except ValueError as error:
        found["single"] = str(error)
    torch.save(found, f"{out}{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(work, args=(str(folder / "meeting"), str(folder / "found")), nprocs=WORLD, start_method="spawn")
    return [torch.load(Path(folder / f"found{rank}"), weights_only=True) for rank in range(WORLD)]


def joined(sizes: str) -> list[DomainBatch]:
    return [
        DomainBatch(
            [
                Labelled(
                    torch.cat([part.sources[0].images for part in step]),
                    torch.cat([part.sources[0].labels for part in step]),
                )
            ],
            [torch.cat([part.targets[0] for part in step])],
        )
        for step in batches(SIZES[sizes])
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}{' lightning' if case[2] else ''}")
def test_two_processes_train_as_one_with_the_joined_batch(distributed: list[dict[Any, Any]], case: Any) -> None:
    alone = train(method(case[0]), joined(case[1]))
    assert float(alone["losses"].abs().min()) > 1e-3
    for found in (ranks[case] for ranks in distributed):
        torch.testing.assert_close(found["losses"], alone["losses"], atol=1e-9, rtol=1e-9)
        for name, grad in alone["gradients"].items():
            torch.testing.assert_close(found["gradients"][name], grad, atol=1e-9, rtol=1e-7)
        for key, value in alone["state"].items():  # weights, running statistics, moving centroids, counts of classes
            if key != "seen":
                torch.testing.assert_close(found["state"][key], value, atol=1e-9, rtol=1e-7)
    moved = [key for key in alone["state"] if "centroids" in key or "counts" in key]
    assert case[0] == "stage2" or moved


def test_without_sync_each_process_normalises_its_own(distributed: list[dict[Any, Any]]) -> None:
    alone = train(method("mstn"), joined("uneven"))
    assert not torch.allclose(distributed[0]["apart"]["losses"], alone["losses"], atol=1e-4)


def test_a_mixed_batch_is_joined_by_domain(distributed: list[dict[Any, Any]]) -> None:
    layer = DomainSpecificBatchNorm2d(3, 4).double()
    (x0, of0), (x1, of1) = mixed_data()
    alone = mixed(copy.deepcopy(layer), torch.cat([x0, x1]), torch.cat([of0, of1]))
    for name in ("out", "x"):
        torch.testing.assert_close(torch.cat([ranks["mixed"][name] for ranks in distributed]), alone[name])
    torch.testing.assert_close(torch.cat([ranks["context"] for ranks in distributed]), alone["out"])
    for key in alone:
        if key.startswith("bns"):
            for ranks in distributed:
                torch.testing.assert_close(ranks["mixed"][key], alone[key])
        if key.startswith("grad"):
            torch.testing.assert_close(sum(ranks["mixed"].get(key, 0) for ranks in distributed), alone[key])


def test_a_single_value_in_all_processes_is_named(distributed: list[dict[Any, Any]]) -> None:
    assert all("all processes together have 1" in ranks["single"] for ranks in distributed)


SCRIPT = """
import sys, torch
from lightning import Trainer
from saccade.adaptation import Classifier, DomainDiscriminator, MSTN, DSBNStage1
from saccade.adaptation.dsbn import convert_dsbn
from saccade.adaptation.task import DomainAdaptation
from tests.adaptation.players import sets
from torch import nn

if __name__ == "__main__":
    world, size = int(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8))
    network = convert_dsbn(Classifier(body, nn.Linear(8, 3), 8, 3), 2, sync=True)
    method = DSBNStage1(network, MSTN(3, 3, discriminator=lambda d: DomainDiscriminator(d, 8, 0.0)))
    task = DomainAdaptation(method, lambda g: torch.optim.SGD(g, lr=0.1))
    kind = "ddp_find_unused_parameters_true" if world > 1 else "auto"
    trainer = Trainer(accelerator="cpu", devices=world, strategy=kind, max_epochs=1, logger=False,
                      enable_progress_bar=False, enable_checkpointing=False, limit_val_batches=0)
    trainer.fit(task, sets(source_batch=size, target_batch=size, iterations=4))
    if trainer.global_rank == 0:
        torch.save(task.state_dict(), f"{world}.pt")
"""


def test_lightning_trains_two_processes_as_one(tmp_path: Path) -> None:
    """By `sync`: torch's DistributedDataParallel refuses SyncBatchNorm, Lightning's way, on a CPU."""
    (tmp_path / "go.py").write_text(SCRIPT)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    states = []
    for world, size in (("1", "8"), ("2", "4")):
        done = subprocess.run(
            [sys.executable, "go.py", world, size],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        states.append(torch.load(tmp_path / f"{world}.pt", weights_only=True))
    moved = [key for key in states[0] if "running_mean" in key or "centroids" in key]
    assert len(moved) == 2 * 2 + 2
    for key, value in states[0].items():
        if key != "method.seen":  # what each process has seen by itself
            torch.testing.assert_close(states[1][key], value, msg=key)
