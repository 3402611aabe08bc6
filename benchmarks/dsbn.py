"""Domain-specific batch norm against the plain one, and against a layer that looks its domain up in a tensor.

Limit: the bytes of the activations, as for plain batch norm; a merged branch is one. DSBN adds a few microseconds of
Python a layer. The peer of the authors' kind takes a vector of domains and reads its first element at every layer,
which on a GPU makes the host wait at every layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from saccade.adaptation.dsbn import DomainSpecificBatchNorm2d, convert_dsbn, dsbn_layers, merge_domain, use_domain
from saccade.bench import Comparison


class IndexedBatchNorm(nn.Module):
    """Runs the branch that the first entry of a vector names, as the authors' layer does."""

    def __init__(self, branches: nn.ModuleList) -> None:
        super().__init__()
        self.bns = branches
        self.label: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        assert self.label is not None
        return self.bns[int(self.label[0])](x)


def indexed(network: nn.Module, label: Tensor) -> nn.Module:
    made = merge_domain(network, 0)
    for (name, layer), old in zip(
        [(n, m) for n, m in made.named_modules() if isinstance(m, nn.BatchNorm2d)], dsbn_layers(network), strict=True
    ):
        del layer
        new = IndexedBatchNorm(copy.deepcopy(old.bns))
        new.label = label
        parent, _, key = name.rpartition(".")
        setattr(made.get_submodule(parent), key, new)
    return made


def comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = resnet50(weights=None).to(device).eval()
    dsbn = convert_dsbn(copy.deepcopy(plain), 2)
    merged = merge_domain(dsbn, 1)
    x = torch.randn(8, 3, 128, 128, device=device)
    label = torch.ones(8, dtype=torch.long, device=device)
    theirs = indexed(dsbn, label).eval()

    def inference(network: nn.Module) -> None:
        with torch.inference_mode():
            network(x)

    def inference_of_branch() -> None:
        with torch.inference_mode(), use_domain(dsbn, 1):
            dsbn(x)

    def training(network: nn.Module) -> None:
        network.train()
        network(x).sum().backward()
        network.zero_grad()

    def training_of_branch() -> None:
        dsbn.train()
        with use_domain(dsbn, 1):
            dsbn(x).sum().backward()
        dsbn.zero_grad()

    yield Comparison(
        name="ResNet-50, 8 x 128 x 128, inference of a merged branch",
        ours=lambda: inference(merged),
        peer=lambda: inference(plain),
        peer_name="the same network with plain batch norm",
        target=1 / 1.02,
        limit="the network itself: the modules are the same",
    )
    yield Comparison(
        name="ResNet-50, 8 x 128 x 128, inference of a branch",
        ours=inference_of_branch,
        peer=lambda: inference(plain),
        peer_name="the same network with plain batch norm",
        target=0.95,
        limit="the network itself",
    )
    yield Comparison(
        name="ResNet-50, 8 x 128 x 128, forward and backward of a branch",
        ours=training_of_branch,
        peer=lambda: training(theirs),
        peer_name="a vector of domains, read at every layer",
        target=0.98,
        limit="the network itself; on a GPU a wait a layer",
    )
    layer = DomainSpecificBatchNorm2d(64, 2).to(device)
    norm = nn.BatchNorm2d(64).to(device)
    y = torch.randn(32, 64, 28, 28, device=device, requires_grad=True)
    yield Comparison(
        name="a layer, 32 x 64 x 28 x 28, forward and backward",
        ours=lambda: layer(y, 1).sum().backward(),
        peer=lambda: norm(y).sum().backward(),
        peer_name="plain batch norm",
        target=0.95,
        limit="bytes of the activations",
    )
    mixed = torch.arange(32, device=device) % 2
    yield Comparison(
        name="a layer, 32 x 64 x 28 x 28 of two domains mixed, forward and backward",
        ours=lambda: layer(y, mixed).sum().backward(),
        peer=lambda: one_by_one(layer, y, mixed).sum().backward(),
        peer_name="masks and assignments, a domain at a time",
        target=1.0,
        limit="bytes of the activations, twice more for the sorting",
    )


def one_by_one(layer: DomainSpecificBatchNorm2d, x: Tensor, domains: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for d in range(2):
        out[domains == d] = layer.bns[d](x[domains == d])
    return out
