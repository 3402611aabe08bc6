"""On a GPU, where there is one, losses and measures on continuous labels give what they give on the CPU."""

import pytest
import torch
from torch import nn

from saccade.metric import (
    BinaryTripletLoss,
    DenseTripletLoss,
    LogRatioLoss,
    dense_neighbour_batches,
    mean_label_distance_at_k,
    ndcg_continuous,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.mark.parametrize("loss", [LogRatioLoss(), DenseTripletLoss(), BinaryTripletLoss()])
@pytest.mark.parametrize("whole", [False, True])
def test_losses_and_gradients(loss: nn.Module, whole: bool) -> None:
    x, labels = torch.randn(20, 8, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    targets = labels if whole else (labels[1:] - labels[0]).norm(dim=1)
    here, there = x.clone().requires_grad_(), x.cuda().requires_grad_()
    loss(here, targets).backward()
    loss(there, targets.cuda()).backward()
    torch.testing.assert_close(there.grad.cpu(), here.grad)


def test_batches_and_measures() -> None:
    labels = torch.randn(40, 3)
    batch = next(dense_neighbour_batches(labels.cuda(), batch_size=12))
    assert batch.device.type == "cpu"
    queries, items, distances = torch.randn(5, 4), torch.randn(30, 4), torch.rand(5, 30)
    moved = queries.cuda(), items.cuda(), distances.cuda()
    for measure in (mean_label_distance_at_k, ndcg_continuous):
        assert measure(*moved, [3])[3] == pytest.approx(measure(queries, items, distances, [3])[3])
