"""On a GPU, where there is one, an iteration of CMSS gives what it gives on the CPU."""

import copy

import pytest
import torch

from saccade.adaptation import CMSS, DomainBatch, Labelled, Moment
from tests.adaptation.test_cmss import batch, make, step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def on_gpu(given: DomainBatch) -> DomainBatch:
    sources = [Labelled(part.images.cuda(), part.labels.cuda()) for part in given.sources]
    return DomainBatch(sources, [target.cuda() for target in given.targets])


@pytest.mark.parametrize("conditional", [False, True])
def test_an_iteration(conditional: bool) -> None:
    here: CMSS = make(conditional=conditional, weighted_discriminator=True)
    here.manager.bound, here.manager.min_ess = 2.0, 0.9
    there = copy.deepcopy(here).cuda()
    for at in range(3):
        losses = step(here, batch(seed=at), Moment(at + 1, 5))
        moved = step(there, on_gpu(batch(seed=at)), Moment(at + 1, 5))
        torch.testing.assert_close({name: loss.cpu() for name, loss in moved.items()}, losses)
    assert here.measures() == pytest.approx(there.measures())
    torch.testing.assert_close(there.cpu().state_dict(), here.state_dict())
