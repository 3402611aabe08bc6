"""Every filter is trained equally often."""

from collections.abc import Callable

import pytest
import torch

from saccade.nn.fair_channels import fair_channel_masks, fair_channel_slices


@pytest.mark.parametrize("n", [3, 5, 7, 11])
@pytest.mark.parametrize("group", [1, 4])
def test_every_filter_is_used_with_the_papers_probability(n: int, group: int) -> None:
    masks = fair_channel_masks(n, group)
    assert masks.sum(1).tolist() == [k * group for k in range(1, n + 1)]
    assert masks.double().mean(0).tolist() == pytest.approx(n * group * [(n + 1) / (2 * n)])
    for k in range((n - 1) // 2):
        assert torch.equal(masks[k], ~masks[n - 2 - k])


def test_slices_are_the_masks_and_plain_sharing_is_unfair() -> None:
    for row, taken in zip(fair_channel_masks(7, 3), fair_channel_slices(7, 3), strict=True):
        assert torch.equal(row.nonzero().flatten(), torch.arange(taken.start, taken.stop))
    plain = torch.arange(5) >= torch.arange(5)[:, None]
    assert plain.double().mean(1).tolist() == [1.0, 0.8, 0.6, 0.4, 0.2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fair_channel_masks(4, 2), "odd number of candidates, at least 3, not 4"),
        (lambda: fair_channel_masks(1, 2), "odd number of candidates, at least 3, not 1"),
        (lambda: fair_channel_masks(3, 0), "group has to be at least 1"),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
