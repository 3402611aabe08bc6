import pytest
import torch

from saccade.metric import binary_neighbour_batches, dense_neighbour_batches
from saccade.metric.neighbour_batches import LabelNeighbours, dense_neighbours

LABELS = torch.randn(40, 3)
DISTANCES = torch.cdist(LABELS, LABELS, compute_mode="donot_use_mm_for_euclid_dist")


def test_a_dense_batch_is_the_anchor_its_nearest_and_others_by_distance() -> None:
    batches = list(dense_neighbour_batches(LABELS, batch_size=12, num_nearest=5))
    assert sorted(int(batch[0]) for batch in batches) == list(range(40))
    for batch in batches:
        anchor, rest = int(batch[0]), batch[1:]
        by_label = [i for i in DISTANCES[anchor].argsort().tolist() if i != anchor]
        assert rest[:5].tolist() == by_label[:5]
        assert len(set(batch.tolist())) == 12
        apart = DISTANCES[anchor, rest]
        assert torch.equal(apart, apart.sort().values)


def test_every_other_sample_can_be_drawn() -> None:
    """Errata: the authors' code never draws the farthest neighbour."""
    drawn = {int(place) for _ in range(300) for place in dense_neighbours(20, 8, 5)}
    assert drawn == set(range(20))


def test_a_binary_batch_is_the_anchor_positives_and_negatives() -> None:
    for batch in binary_neighbour_batches(LABELS, batch_size=12, num_positives=10, positives_per_batch=4):
        anchor = int(batch[0])
        by_label = [i for i in DISTANCES[anchor].argsort().tolist() if i != anchor]
        assert set(batch[1:5].tolist()) <= set(by_label[:10])
        assert set(batch[5:].tolist()) <= set(by_label[10:])
        assert len(set(batch.tolist())) == 12


@pytest.mark.parametrize("make", [dense_neighbour_batches, binary_neighbour_batches])
def test_labels_and_their_distances_give_the_same_and_draws_come_from_the_generator(make) -> None:
    one, two, other = (
        torch.stack(list(make(given, batch_size=9, generator=torch.Generator().manual_seed(seed))))
        for given, seed in ((LABELS, 1), (DISTANCES, 1), (LABELS, 2))
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_ties_are_ordered_by_index_and_duplicates_of_the_anchor_stay() -> None:
    order, distances = LabelNeighbours(torch.tensor([[1.0], [0.0], [1.0], [2.0], [0.0]])).of(2)
    assert order.tolist() == [0, 1, 3, 4]
    assert distances.tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dense_neighbour_batches(LABELS, 6, 5), "a batch of 6 has no room .* at least 7"),
        (lambda: dense_neighbour_batches(LABELS, 41), "a batch of 41 is larger than the data set of 40 samples"),
        (lambda: dense_neighbour_batches(LABELS, 12, 0), "nearest neighbours is 0; at least 1"),
        (lambda: binary_neighbour_batches(LABELS, 41), "a batch of 41 is larger than the data set"),
        (lambda: binary_neighbour_batches(LABELS, 30), "num_positives is 30; with 39 other samples, .* 5 to 15"),
        (lambda: binary_neighbour_batches(LABELS, 12, 3), "num_positives is 3"),
        (lambda: dense_neighbour_batches(LABELS[:, 0], 12), r"labels are torch.float32 \(40,\)"),
        (lambda: dense_neighbour_batches(LABELS * torch.nan, 12), "labels hold NaN or infinity"),
        (lambda: dense_neighbour_batches(torch.ones(40, 40), 12), r"read as distances: they have to be 0 on the diag"),
        (lambda: dense_neighbour_batches(-DISTANCES, 12), "nowhere negative"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
