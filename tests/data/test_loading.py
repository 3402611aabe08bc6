import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from saccade.data.loading import Draw, EpochSampler, Seeded, make_loader, mix


class Draws(Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple:
        return index, torch.rand(()).item(), float(np.random.rand()), random.random()


def test_seeds_of_neighbours_are_unrelated() -> None:
    seeds = {mix(a, b) for a in range(60) for b in range(60)}
    assert len(seeds) == 3600
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_epoch_is_a_permutation_and_another_one_each_time() -> None:
    sampler = EpochSampler(20, seed=3)
    first = [draw.place for draw in sampler]
    sampler.set_epoch(1)
    second = [draw.place for draw in sampler]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


@pytest.mark.parametrize("start", [0, 3, 7])
def test_starting_late_gives_the_rest_of_the_epoch(start: int) -> None:
    whole = list(EpochSampler(20, seed=3, epoch=2))
    late = EpochSampler(20, seed=3, epoch=2, start=start)
    assert list(late) == whole[start:]
    late.set_epoch(3)
    assert len(list(late)) == len(late) == 20


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(processes: int) -> None:
    alone = [draw.place for draw in EpochSampler(24, seed=1)]
    shares = [
        [draw.place for draw in EpochSampler(24, seed=1, num_replicas=processes, rank=rank)]
        for rank in range(processes)
    ]
    per_step = 24 // (4 * processes)
    for step in range(per_step):
        joined = [place for share in shares for place in share[4 * step : 4 * step + 4]]
        assert sorted(joined) == sorted(alone[4 * processes * step : 4 * processes * (step + 1)])


def test_training_pads_and_evaluation_does_not() -> None:
    train = [list(EpochSampler(7, num_replicas=2, rank=rank)) for rank in (0, 1)]
    test = [list(EpochSampler(7, shuffle=False, pad=False, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert [len(share) for share in train] == [4, 4]
    assert sorted(draw.place for share in test for draw in share) == list(range(7))


def test_a_sample_is_a_function_of_its_draw() -> None:
    data = Seeded(Draws())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert data[Draw(4, 77)] == data[Draw(4, 77)]
    assert data[Draw(4, 77)] != data[Draw(4, 78)]
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_change_nothing() -> None:
    def load(workers: int) -> list:
        return [[part.tolist() for part in batch] for batch in make_loader(Draws(), 4, train=True, num_workers=workers)]

    assert load(0) == load(2)


def test_an_empty_data_set_is_named() -> None:
    with pytest.raises(ValueError, match="the data set is empty"):
        EpochSampler(0)
