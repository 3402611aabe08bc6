"""On a GPU, where there is one, DeCoTa gives what it gives on the CPU."""

import copy

import pytest
import torch

from saccade.adaptation import Labelled, decota_losses, digit_classifier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def test_losses_and_gradients() -> None:
    networks = [digit_classifier(side=8).double() for _ in range(2)]
    images, labels = torch.randn(3, 6, 1, 8, 8, dtype=torch.float64), torch.arange(6)
    found = []
    for device in ("cpu", "cuda"):
        f, g = (copy.deepcopy(network).to(device) for network in networks)
        parts = [Labelled(part.to(device), labels.to(device)) for part in images[:2]]
        generator = torch.Generator().manual_seed(0)
        output = decota_losses(f, g, parts[0], parts[1], images[2].to(device), 0.0, generator=generator)
        output.loss_f.backward()
        found.append([output.loss_f, output.loss_g, *(parameter.grad for parameter in f.parameters())])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.cpu(), here)
