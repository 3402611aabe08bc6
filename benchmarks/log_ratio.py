"""Log-ratio and dense triplet losses, forward and backward, against the formulation with m x m matrices.

Limit: reading m x d embeddings; the pairs need no memory, for their mean is a variance.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from saccade.bench import Comparison
from saccade.metric import DenseTripletLoss, LogRatioLoss


def plain_log_ratio(x: Tensor, g: Tensor, eps: float = 1e-6) -> Tensor:
    """Every pair of neighbours as an entry of a matrix."""
    m = len(g)
    e = ((x[1:] - x[0]).square().sum(1) + 1e-4 / x.shape[1]).sqrt()
    log_e, log_g = (e + eps).log().expand(m, m), (g + eps).log().expand(m, m)
    weights = torch.ones(m, m, device=x.device).triu(1)
    ratios = (log_e - log_e.T) - (log_g - log_g.T)
    return (weights * ratios.square()).sum() / weights.sum()


def plain_dense_triplet(x: Tensor, g: Tensor, margin: float = 0.03) -> Tensor:
    """Every pair of neighbours, sorted by label, as an entry of a matrix."""
    m = len(g)
    x = torch.nn.functional.normalize(x, dim=1)
    s = (x[1:] - x[0]).square().sum(1)[g.argsort()]
    weights = torch.ones(m, m, device=x.device).triu(1)
    return (weights * (s[:, None] - s[None] + margin).clamp(min=1e-12)).sum() / weights.sum()


def every_anchor(plain, x: Tensor, labels: Tensor) -> Tensor:
    """The plain loss with each row as the anchor, one after the other."""
    distances, losses = torch.cdist(labels, labels), []
    for anchor in range(len(x)):
        rows = torch.tensor([i for i in range(len(x)) if i != anchor], device=x.device)
        losses.append(plain(torch.cat([x[anchor : anchor + 1], x[rows]]), distances[anchor, rows]))
    return torch.stack(losses).mean()


def comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for m, target, memory in ((149, 1.0, 1.5), (1000, 4.0, 8.0)):
        x = torch.randn(m + 1, 128, device=device, requires_grad=True)
        g = torch.rand(m, device=device) + 0.1
        for name, ours, plain in (
            ("log-ratio", LogRatioLoss(), plain_log_ratio),
            ("dense triplets", DenseTripletLoss(), plain_dense_triplet),
        ):
            yield Comparison(
                name=f"{name}, loss and gradients, one anchor, {m} neighbours, d 128",
                ours=lambda ours=ours, x=x, g=g: backward(ours(x, g), x),
                peer=lambda plain=plain, x=x, g=g: backward(plain(x, g), x),
                peer_name="m x m matrices",
                target=target if name == "log-ratio" else 1.0,
                memory_target=memory if name == "log-ratio" else 1.0,
                limit="reading m x d embeddings",
            )
    x = torch.randn(150, 128, device=device, requires_grad=True)
    labels = torch.randn(150, 28, device=device)
    for name, ours, plain in (
        ("log-ratio", LogRatioLoss(), plain_log_ratio),
        ("dense triplets", DenseTripletLoss(), plain_dense_triplet),
    ):
        yield Comparison(
            name=f"{name}, loss and gradients, each of 150 rows as the anchor, d 128",
            ours=lambda ours=ours: backward(ours(x, labels), x),
            peer=lambda plain=plain: backward(every_anchor(plain, x, labels), x),
            peer_name="m x m matrices, anchor by anchor",
            target=10.0 if name == "log-ratio" else 1.0,
            memory_target=4.0 if name == "log-ratio" else 1.0,
            limit="the distances of all pairs of rows",
        )


def backward(loss: Tensor, x: Tensor) -> Tensor:
    """The gradient."""
    return torch.autograd.grad(loss, x)[0]
