"""Proxy Anchor loss, forward and backward, against pytorch-metric-learning.

Limit: one (B, d) x (d, C) product forward and two backward, and four passes over B x C floats.
"""

from collections.abc import Iterator

import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss as PeerLoss

from saccade.bench import Comparison
from saccade.metric import ProxyAnchorLoss


def comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for classes in (98, 1_000, 11_318):
        ours = ProxyAnchorLoss(classes, 512).to(device)
        peer = PeerLoss(classes, 512).to(device)
        peer.load_state_dict(ours.state_dict())
        embeddings = torch.randn(180, 512, device=device, requires_grad=True)
        labels = torch.randint(classes, (180,), device=device)
        yield Comparison(
            name=f"loss and gradients, batch 180, d 512, {classes} classes",
            ours=lambda loss=ours, x=embeddings, y=labels: loss(x, y).backward(),
            peer=lambda loss=peer, x=embeddings, y=labels: loss(x, y).backward(),
            peer_name="pytorch-metric-learning",
            target=1.0,
            memory_target=1.0,
            limit="three matrix products and four passes over B x C floats",
        )
