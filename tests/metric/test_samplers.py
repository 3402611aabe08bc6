"""Samplers: what a batch holds, and the same draws as the reference library under the same seed."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import pytorch_metric_learning.samplers as peer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from saccade.metric.miners import BatchHardMiner, PairMarginMiner
from saccade.metric.samplers import FixedSetOfTriplets, HierarchicalSampler, MPerClassSampler, TuplesToWeightsSampler
from saccade.metric.tuples import appearance_weights


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 8),
    m=st.integers(1, 5),
    groups=st.integers(1, 8),
    with_batch=st.booleans(),
    length=st.integers(1, 200),
)
def test_a_batch_holds_m_of_each_of_its_classes(
    seed: int, classes: int, m: int, groups: int, with_batch: bool, length: int
) -> None:
    labels = np.random.RandomState(seed).randint(classes, size=40)
    groups = min(groups, len(set(labels)))
    batch = m * groups if with_batch else None
    length = max(length, batch or 0)
    sampler = MPerClassSampler(labels, m, batch, length, seed=seed)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) <= length
    if batch:
        assert len(drawn) > length - batch
    for part in _parts(drawn, batch or m):
        of_part = [labels[index] for index in part]
        assert all(of_part.count(label) in (m, len(part) % m) for label in set(of_part))
        for label in set(of_part):
            own = [index for index in part if labels[index] == label]
            assert len(set(own)) == len(own) or (labels == label).sum() < m


def _parts(drawn: list[int], size: int) -> list[list[int]]:
    return [drawn[at : at + size] for at in range(0, len(drawn), size)]


@pytest.mark.parametrize("batch_size", [None, 12])
def test_numpy_s_seed_gives_the_reference_library_s_draws(batch_size: int | None) -> None:
    labels = torch.randint(7, (50,))
    drawn = []
    for home in (MPerClassSampler, peer.MPerClassSampler):
        np.random.seed(3)
        sampler = home(labels, 3, batch_size, 400)
        drawn.append((len(sampler), [int(index) for index in sampler]))
    assert drawn[0] == drawn[1]


def test_a_seed_makes_the_draws_repeat_whatever_numpy_does() -> None:
    labels = np.arange(60) % 6
    two_levels = np.stack([labels, labels % 3], axis=1)
    for make in (
        lambda: MPerClassSampler(labels, 2, 6, 60, seed=5),
        lambda: FixedSetOfTriplets(labels, 9, seed=5),
        lambda: HierarchicalSampler(two_levels, 8, 2, seed=5),
    ):
        first = [list(make()), np.random.rand()]
        assert first[0] == list(make())
        sampler = make()
        assert list(sampler) != list(sampler)


def test_triplets_are_fixed_and_their_order_is_not() -> None:
    labels = torch.arange(30) % 5
    sampler = FixedSetOfTriplets(labels, 12)
    epochs = [list(sampler) for _ in range(2)]
    triplets = [{tuple(part) for part in _parts(epoch, 3)} for epoch in epochs]
    assert triplets[0] == triplets[1]
    assert epochs[0] != epochs[1]
    for anchor, positive, negative in triplets[0]:
        assert labels[anchor] == labels[positive] != labels[negative]
        assert anchor != positive
    assert len(epochs[0]) == len(sampler) == 36


def test_super_classes_share_a_batch() -> None:
    labels = torch.stack([torch.arange(96) // 6, torch.arange(96) // 24], dim=1)
    sampler = HierarchicalSampler(labels, batch_size=16, samples_per_class=4, batches_per_super_tuple=3)
    batches = list(DataLoader(TensorDataset(labels), batch_sampler=sampler))
    assert len(batches) == len(sampler) == 3 * 6
    pairs = []
    for (batch,) in batches:
        assert batch[:, 1].unique(return_counts=True)[1].tolist() == [8, 8]
        assert batch[:, 0].unique(return_counts=True)[1].tolist() == [4] * 4
        pairs.append(tuple(batch[:, 1].unique().tolist()))
    assert sorted(pairs) == sorted(list(itertools.combinations(range(4), 2)) * 3)
    everything = HierarchicalSampler(labels, batch_size=36, samples_per_class="all", super_classes_per_batch=3)
    assert all(len(set(batch)) == 36 for batch in everything)


@pytest.mark.parametrize("subset", [None, 20])
def test_samples_that_a_miner_names_are_drawn(subset: int | None) -> None:
    x, y = torch.randn(40, 4), torch.arange(40) % 4
    y[30:] = 9
    data = TensorDataset(x, y)
    sampler = TuplesToWeightsSampler(
        nn.Identity(), PairMarginMiner(0.9, 0.5), data, subset, dataloader_num_workers=0, data_device="cpu"
    )
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == (subset or 40)
    assert sampler.weights is not None
    assert all(sampler.weights[index] > 0 for index in drawn)
    if subset is None:
        torch.testing.assert_close(sampler.weights, appearance_weights(PairMarginMiner(0.9, 0.5)(x, y), 40))
        assert len(set(drawn)) < 40
    else:
        assert int((sampler.weights > 0).sum()) <= 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MPerClassSampler([0, 1], 2, 8), "batch of 8 is asked for"),
        (lambda: MPerClassSampler([0, 1, 2], 2, 3), "m = 2 does not divide"),
        (lambda: MPerClassSampler([0, 1, 2], 2, 4, 3), "an epoch of 3 is shorter"),
        (lambda: HierarchicalSampler(torch.zeros(4), 4, 2), r"\(4,\)"),
        (lambda: HierarchicalSampler(torch.zeros(4, 2), 5, 2), "2 super classes do not share a batch of 5"),
        (lambda: HierarchicalSampler(torch.zeros(4, 2), 8, 3), "samples_per_class is 3"),
        (lambda: FixedSetOfTriplets([0, 1], 0), "0 triplets"),
        (lambda: FixedSetOfTriplets([1, 1], 4), "1 classes"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    for kind in (ValueError, AssertionError) if "(4" not in message else (ValueError,):
        with pytest.raises(kind, match=message):
            call()


def test_hard_samples_come_more_often() -> None:
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.05, 1.0]])
    y = torch.tensor([0, 0, 1, 1, 0])  # the last lies among the others
    sampler = TuplesToWeightsSampler(
        nn.Identity(), BatchHardMiner(), TensorDataset(x, y), dataloader_num_workers=0, data_device="cpu"
    )
    list(sampler)
    assert sampler.weights is not None
    assert int(sampler.weights.argmax()) == 4
