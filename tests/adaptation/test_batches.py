"""Batches of several domains: balanced, repeatable, the same for any number of processes; target labels hidden."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.adaptation.datamodule import DomainBatches, DomainSets
from saccade.adaptation.digits import DigitDomains, digit_domain, draw_shots
from saccade.adaptation.images import TensorImages
from saccade.adaptation.method import DomainBatch, Labelled, check_batch
from saccade.data.loading import EpochSampler


def numbered(count: int, labelled: bool = True) -> TensorImages:
    """Images that say which they are."""
    images = torch.arange(count).float()[:, None, None, None].expand(-1, 1, 2, 2)
    return TensorImages(images, torch.arange(count) % 2 if labelled else None)


def seen(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].long().tolist()


def batches(sources: list[int], target: int, length: int = 6, few: int = 0, seed: int = 0) -> DomainBatches:
    part = numbered(few) if few else None
    return DomainBatches(
        [numbered(n) for n in sources], [numbered(target, labelled=False)], part, (4, 3, 5), length, seed
    )


def test_each_domain_has_its_size_and_the_few_at_most_all_there_are() -> None:
    batch = batches([10, 7], 9, few=2)[0]
    assert [len(part.images) for part in batch.sources] == [4, 4]
    assert [len(part) for part in batch.targets] == [3]
    assert batch.labelled_target is not None
    assert sorted(seen(batch.labelled_target.images)) == [0, 1]


def test_labels_belong_to_their_images() -> None:
    for place in range(6):
        for part in batches([10, 7], 9)[place].sources:
            assert part.labels.tolist() == [number % 2 for number in seen(part.images)]


@pytest.mark.parametrize("size", [4, 8, 3, 2, 11])
def test_a_domain_is_seen_whole_before_an_image_comes_again(size: int) -> None:
    order = [number for place in range(6) for number in seen(batches([size], 9)[place].sources[0].images)]
    rounds = [sorted(order[start : start + size]) for start in range(0, len(order) - size + 1, size)]
    assert rounds == [list(range(size))] * (24 // size)
    assert size < 8 or order[:size] != order[size : 2 * size]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def epoch(number: int, seed: int) -> list[list[int]]:
        data = batches([50], 9, seed=seed)
        sampler = EpochSampler(len(data), seed=seed, order=data.order, num_replicas=1, rank=0)
        sampler.set_epoch(number)
        return [seen(data[draw.place].sources[0].images) for draw in sampler]

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(1, 0) != epoch(1, 1)


def test_two_processes_see_what_one_sees_with_twice_the_batch() -> None:
    def steps(rank: int, world: int, size: int) -> list[set[int]]:
        data = DomainBatches([numbered(50)], [numbered(9, labelled=False)], None, (size, 3, 1), 3 * world, 0)
        sampler = EpochSampler(
            len(data), order=lambda generator: torch.arange(len(data)), num_replicas=world, rank=rank
        )
        return [set(seen(data[draw.place].sources[0].images)) for draw in sampler]

    joined = [one | two for one, two in zip(steps(0, 2, 4), steps(1, 2, 4), strict=True)]
    assert joined == steps(0, 1, 8)


@pytest.mark.parametrize(
    ("sources", "targets", "sizes", "message"),
    [
        ([], [4], (1, 1, 1), "0 sources and 1 targets"),
        ([4], [], (1, 1, 1), "1 sources and 0 targets"),
        ([4], [4], (0, 1, 1), "batch sizes"),
    ],
)
def test_what_cannot_be_joined(sources: list[int], targets: list[int], sizes: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DomainBatches([numbered(n) for n in sources], [numbered(n) for n in targets], None, sizes, 3, 0)


@pytest.mark.usefixtures("unchecked")
def test_a_source_needs_labels_and_a_domain_images() -> None:
    with pytest.raises(ValueError, match="no labels"):
        DomainBatches([numbered(3, labelled=False)], [numbered(3)], None, (1, 1, 1), 3, 0)
    with pytest.raises(ValueError, match="no images"):
        TensorImages(torch.zeros(0, 1, 2, 2))
    with pytest.raises(ValueError, match=r"3 images and labels of shape \(2,\)"):
        TensorImages(torch.zeros(3, 1, 2, 2), torch.zeros(2, dtype=torch.long))


def images(count: int, side: int = 2) -> Tensor:
    return torch.zeros(count, 1, side, side)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (DomainBatch([], [images(2)]), "no source domain"),
        (DomainBatch([Labelled(images(2), torch.zeros(2, dtype=torch.long))], []), "no target domain"),
        (DomainBatch([Labelled(images(2), torch.zeros(2, dtype=torch.long))], [images(0)]), "has no images"),
        (DomainBatch([Labelled(images(2), torch.zeros(2, dtype=torch.long))], [images(2, 3)]), "differ in shape"),
        (DomainBatch([Labelled(images(2), torch.tensor([0, 3]))], [images(2)]), "0 to 2 are accepted"),
        (DomainBatch([Labelled(images(2), torch.tensor([-1, 0]))], [images(2)]), "from -1 to 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_batches_that_no_method_accepts(batch: DomainBatch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_batch(batch, 3)


def test_the_number_of_domains_can_be_asked_for() -> None:
    batch = DomainBatch([Labelled(images(2), torch.zeros(2, dtype=torch.long))] * 2, [images(2)])
    check_batch(batch, 3, sources=2, targets=1)
    with pytest.raises(ValueError, match="2 source domains; 1 are wanted"):
        check_batch(batch, 3, sources=1)


def test_digit_domains_of_one_set_share_no_drawing_and_hide_the_targets_labels() -> None:
    data = DigitDomains(["digits", "digits-bold"], ["digits-faded"], shots=2)
    sources, targets, few = data.train_images()
    assert sum(len(part) for part in [*sources, *targets]) == 1198
    assert targets[0].labels is None
    assert few is not None
    assert few.labels is not None
    assert few.labels.bincount().tolist() == [2] * 10
    plain = [
        digit_domain("digits", part=part, parts=3).train.flatten(1).sort(0).values.sum().item() for part in range(3)
    ]
    assert len(set(plain)) == 3


def test_real_digits(data_root: Path) -> None:
    data = DigitDomains(["mnist"], ["usps-faded"], root=str(data_root))
    sources, targets, _ = data.train_images()
    assert (len(sources[0]), len(targets[0]), len(data.test_images())) == (8000, 7291, 2007)


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [(["cats"], ["digits"], "no digits 'cats'"), (["digits"], ["digits-wild"], "no look 'wild'")],
)
def test_unknown_digits(sources: list[str], targets: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitDomains(sources, targets)


def test_shots_are_drawn_by_seed_and_asked_for_at_most_as_many_as_there_are() -> None:
    labels = torch.arange(30) % 3
    assert draw_shots(labels, 2, 0).tolist() == draw_shots(labels, 2, 0).tolist() != draw_shots(labels, 2, 1).tolist()
    with pytest.raises(ValueError, match="class 0 has 10 images; 11"):
        draw_shots(labels, 11, 0)


def test_the_data_module_hands_batches_on_whole() -> None:
    data = DomainSets([numbered(9)], [numbered(8, labelled=False)], source_batch=2, target_batch=3, iterations=4)
    loaded = list(data.train_dataloader())
    assert len(loaded) == 4
    assert all(isinstance(batch, DomainBatch) for batch in loaded)
    assert data.val_dataloader() == []
