"""On a GPU, where there is one, DSBN gives what it gives on the CPU."""

import copy

import pytest
import torch
from torch import nn

from saccade.adaptation import DomainBatch, DomainDiscriminator, Labelled, Moment, digit_classifier
from saccade.adaptation.dsbn import convert_dsbn, merge_domain
from saccade.adaptation.dsbn_stages import DSBNStage1
from saccade.adaptation.mstn import MSTN
from saccade.adaptation.self_training import SelfTrainingLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def test_layers_of_mixed_batches_and_merging() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5))
    here = convert_dsbn(net, 3).double()
    there = copy.deepcopy(here).cuda()
    x, of = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.tensor([2, 0, 2, 0, 0, 2])
    torch.testing.assert_close(there(x.cuda(), domain=of.cuda()).cpu(), here(x, domain=of))
    torch.testing.assert_close(there(x.cuda(), domain=1).cpu(), here(x, domain=1))
    there.eval()
    assert torch.equal(merge_domain(there, 2)(x.cuda()), there(x.cuda(), domain=2))


def test_both_stages() -> None:
    def classifier() -> nn.Module:
        return digit_classifier(side=8, num_classes=4, features=5)

    here = DSBNStage1(classifier(), MSTN(4, 4, discriminator=lambda d: DomainDiscriminator(d, 8, 0.0)))
    here = here.double()
    second = here.teach(classifier(), loss=SelfTrainingLoss(0.2)).double()
    x, y = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 4
    batch = DomainBatch([Labelled(x, y)], [x + 1])
    moved = DomainBatch([Labelled(x.cuda(), y.cuda())], [x.cuda() + 1])
    for method in (here, second):
        there = copy.deepcopy(method).cuda()
        for mine, other in zip(method.updates(batch, Moment(5, 9)), there.updates(moved, Moment(5, 9)), strict=True):
            torch.testing.assert_close(other.loss.cpu(), mine.loss)
