"""Two real processes: their averaged gradient is that of one process with the joined batch."""

import copy
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from saccade.metric import losses, miners, reducers
from saccade.metric.distributed import DistributedLossWrapper, DistributedMinerWrapper, gathered, own_first
from saccade.metric.tuples import all_pairs, without_self_comparisons

WORLD = 2
Case = dict[str, Any]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()


def batches(steps: int = 1, sizes: tuple[int, int] = (8, 8), classes: int = 4) -> list[list[tuple[Tensor, Tensor]]]:
    """One batch for each step and rank; classes are balanced."""
    generator = torch.Generator().manual_seed(3)
    return [
        [
            (torch.randn(size, 6, dtype=torch.float64, generator=generator), torch.arange(size) % classes)
            for size in sizes
        ]
        for _ in range(steps)
    ]


def build(case: Case) -> tuple[nn.Module, nn.Module | None]:
    torch.manual_seed(1)
    loss, miner = case["loss"](), case.get("miner", lambda: None)()
    return loss.double() if isinstance(loss, nn.Module) else loss, miner


CASES: dict[str, Case] = {
    "contrastive": {"loss": functools.partial(losses.ContrastiveLoss, reducer=reducers.MeanReducer())},
    "triplet": {"loss": losses.TripletMarginLoss},
    "ntxent": {"loss": losses.NTXentLoss},
    "uneven": {"loss": losses.NTXentLoss, "sizes": (8, 5)},
    "mined": {"loss": losses.MultiSimilarityLoss, "miner": miners.MultiSimilarityMiner},
    "mined triplets": {"loss": losses.TripletMarginLoss, "miner": lambda: miners.TripletMarginMiner(0.1)},
    "reference set": {"loss": losses.NTXentLoss, "ref": True},
    "mined reference set": {"loss": losses.TripletMarginLoss, "miner": miners.BatchHardMiner, "ref": True},
    "memory": {"loss": lambda: losses.CrossBatchMemory(losses.ContrastiveLoss(), 4, 24), "steps": 3},
    "mined memory": {
        "loss": lambda: losses.CrossBatchMemory(
            losses.TripletMarginLoss(), 4, 24, miner=miners.TripletMarginMiner(0.3)
        ),
        "steps": 3,
    },
    "memory and tuples": {
        "loss": lambda: losses.CrossBatchMemory(losses.TripletMarginLoss(), 4, 24, locate_tuples=True),
        "miner": miners.BatchHardMiner,
        "steps": 3,
    },
    "memory of some": {
        "loss": lambda: losses.CrossBatchMemory(losses.ContrastiveLoss(), 4, 24), "steps": 3, "mask": True,
    },
    "views": {"loss": losses.VICRegLoss, "ref": True, "no labels": True, "atol": 1e-6},
    "efficient": {"loss": losses.NTXentLoss, "efficient": True},
    "efficient mined": {
        "loss": losses.TripletMarginLoss, "miner": lambda: miners.TripletMarginMiner(0.1), "efficient": True,
    },
    "efficient reference set": {"loss": losses.NTXentLoss, "efficient": True, "ref": True},
    "efficient distinct reference set": {"loss": losses.NTXentLoss, "efficient": True, "ref": True, "distinct": True},
}  # fmt: skip


def mask_of(rank: int, size: int) -> Tensor:
    return torch.arange(size) % 2 == rank


def work(rank: int, file: str, names: list[str], out: str) -> None:
    """One process: all cases, one after the other; the averaged gradients and the losses are written down."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    found: dict[str, Any] = {}
    for name in names:
        case = CASES[name]
        model = DistributedDataParallel(network())
        loss, miner = build(case)
        options = {"efficient": case.get("efficient", False), "distinct_ref": case.get("distinct", False)}
        loss = DistributedLossWrapper(loss, **options)
        mine = None if miner is None else DistributedMinerWrapper(miner, **options)
        for step in batches(case.get("steps", 1), case.get("sizes", (8, 8))):
            x, y = step[rank]
            model.zero_grad()
            if case.get("ref"):
                out_all = model(torch.cat([x, x.flip(1) + 0.1]))
                e, r = out_all[: len(x)], out_all[len(x) :]
                refs: dict[str, Any] = {"ref_emb": r, "ref_labels": None if case.get("no labels") else y.clone()}
            else:
                e, refs = model(x), {}
            labels = None if case.get("no labels") else y
            tuples = mine(e, y, *refs.values()) if mine is not None else None
            if case.get("mask"):
                refs["enqueue_mask"] = mask_of(rank, len(x))
            value = loss(e, labels, tuples, **refs)
            value.backward()
        found[name] = (value.detach(), [p.grad.clone() for p in model.parameters()])
    if rank == 0:
        torch.save(found, out)
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(
        work, args=(str(folder / "meeting"), list(CASES), str(folder / "found.pt")), nprocs=WORLD, start_method="spawn"
    )
    return torch.load(folder / "found.pt", weights_only=True)


def joined(case: Case) -> tuple[Tensor, list[Tensor]]:
    """The same by one process."""
    model = network()
    loss, miner = build(case)
    for step in batches(case.get("steps", 1), case.get("sizes", (8, 8))):
        model.zero_grad()
        x, y = torch.cat([part[0] for part in step]), torch.cat([part[1] for part in step])
        e = model(x)
        r = model(x.flip(1) + 0.1) if case.get("ref") else None
        labels = None if case.get("no labels") else y
        refs = () if r is None else (r, None if labels is None else y.clone())
        if case.get("efficient"):
            value = one_process_of_each(case, loss, miner, e, y, r, len(step[0][0]))
        else:
            tuples = None if miner is None else miner(e, y, *refs)
            if case.get("mask"):
                refs = (torch.cat([mask_of(rank, len(part[0])) for rank, part in enumerate(step)]),)  # type: ignore[assignment]
            value = loss(e, labels, tuples, *refs)
        value.backward()
    return value.detach(), [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]


def one_process_of_each(
    case: Case, loss: nn.Module, miner: Any, e: Tensor, y: Tensor, r: Tensor | None, size: int
) -> Tensor:
    """What `efficient` means: each process's own samples against all, where those of the others are constants."""
    total = torch.zeros((), dtype=e.dtype)
    for rank in range(WORLD):
        own = slice(rank * size, (rank + 1) * size)
        other = torch.tensor([at for at in range(len(e)) if not own.start <= at < own.stop])
        searched = e if r is None else r
        references = torch.cat([searched[own], searched[other].detach()])
        ref_labels = torch.cat([y[own], y[other]])
        found = all_pairs(y[own], ref_labels) if miner is None else miner(e[own], y[own], references, ref_labels)
        if not case.get("distinct"):
            found = without_self_comparisons(found, torch.arange(size), len(references))
        total = total + loss(e[own], y[own], found, references, ref_labels)
    return total


@pytest.mark.parametrize("name", list(CASES))
def test_the_gradient_is_that_of_one_process(distributed: dict[str, Any], name: str) -> None:
    _, gradients = distributed[name]
    _, wanted = joined(CASES[name])
    assert any(float(gradient.abs().max()) > 1e-4 for gradient in wanted)
    for gradient, reference in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.get("efficient")])
def test_the_value_is_that_of_one_process_times_their_number(distributed: dict[str, Any], name: str) -> None:
    value, _ = distributed[name]
    torch.testing.assert_close(value, WORLD * joined(CASES[name])[0])


def test_a_distinct_reference_is_a_positive_of_the_sample_beside_it(distributed: dict[str, Any]) -> None:
    """As the reference library does it, sample i never meets reference i, though they are different samples."""
    old, new = (distributed[f"efficient {kind}reference set"][1] for kind in ("", "distinct "))
    assert not torch.allclose(old[0], new[0])


def test_one_process_alone_is_said_and_gets_its_own_loss() -> None:
    x, y = torch.randn(8, 4), torch.arange(8) % 2
    loss, miner = losses.ContrastiveLoss(), miners.MultiSimilarityMiner()
    with pytest.warns(UserWarning, match="no process group"):
        assert DistributedLossWrapper(loss)(x, y) == loss(x, y)
    with pytest.warns(UserWarning, match="no process group"):
        mined = DistributedMinerWrapper(miner)(x, y)
    assert all(torch.equal(one, other) for one, other in zip(mined, miner(x, y), strict=True))
    memory = losses.CrossBatchMemory(losses.ContrastiveLoss(), 4, 16)
    other = copy.deepcopy(memory)
    mask = torch.arange(8) < 4
    with pytest.warns(UserWarning, match="no process group"):
        assert DistributedLossWrapper(memory)(x, y, enqueue_mask=mask) == other(x, y, enqueue_mask=mask)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DistributedLossWrapper(nn.MSELoss()), TypeError, "MSELoss"),
        (lambda: DistributedMinerWrapper(nn.Identity()), TypeError, "Identity"),
        (
            lambda: DistributedLossWrapper(losses.CrossBatchMemory(losses.ContrastiveLoss(), 4), efficient=True),
            ValueError,
            "efficient is True",
        ),
        (
            lambda: DistributedLossWrapper(losses.CrossBatchMemory(losses.ContrastiveLoss(), 4))(
                torch.eye(4), torch.arange(4), ref_emb=torch.eye(4)
            ),
            ValueError,
            "does not take a reference set",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_gathering_of_one_process_gives_its_own_rows(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'alone'}", rank=0, world_size=1)
    try:
        x = torch.randn(3, 2, requires_grad=True)
        assert gathered(x)[0] is x
        assert torch.equal(own_first(x), x)
        assert own_first(None) is None
        y = torch.tensor([0, 0, 1])
        assert DistributedLossWrapper(losses.ContrastiveLoss())(x, y) == losses.ContrastiveLoss()(x, y)
    finally:
        dist.destroy_process_group()
