"""On a GPU, where there is one, parts give what they give on the CPU."""

from pathlib import Path

import pytest
import torch

from saccade.bench import peak_memory
from saccade.metric import ProxyAnchorLoss, ProxyAnchorModel, recall_at_k

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(autouse=True)
def _exact() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def test_proxy_anchor_agrees_with_the_cpu() -> None:
    loss = ProxyAnchorLoss(50, 32)
    x, y = torch.randn(40, 32), torch.randint(50, (40,))
    here = loss(x, y)
    there = loss.cuda()(x.cuda(), y.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-5)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(x.cuda(), y.cuda()).cpu(), here, rtol=1e-5, atol=1e-5)


def test_an_embedding_network_trains_under_autocast() -> None:
    model, loss = ProxyAnchorModel("resnet18", 16).cuda().train(), ProxyAnchorLoss(5, 16).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        value = loss(model(torch.randn(6, 3, 64, 64, device="cuda")), torch.randint(5, (6,), device="cuda"))
    value.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_recall_agrees_with_the_cpu() -> None:
    x, y = torch.randn(300, 16, dtype=torch.float64), torch.randint(20, (300,))
    assert recall_at_k(x.cuda(), y.cuda(), [1, 5]) == recall_at_k(x, y, [1, 5])


def test_a_claim_runs_on_the_gpu(tmp_path: Path) -> None:
    from saccade.claims.engine import reproduce

    result = reproduce("saccade.metric.claims:PROXY_ANCHOR", budget="smoke", jobs=0, device="cuda", out=tmp_path)
    assert len(result.cells) == 5


def test_peak_memory_is_that_of_the_allocator() -> None:
    assert peak_memory(lambda: torch.empty(1 << 20, device="cuda")) >= 4 << 20
