"""Both sides of the benchmark compute the same, ours in less memory."""

import copy
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from saccade.adaptation import Classifier, CosinePredictor, DeCoTa, DomainBatch, Labelled
from saccade.adaptation.networks import digit_body
from saccade.bench import peak_memory

FILE = Path(__file__).parents[2] / "benchmarks" / "mico.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small() -> tuple[DeCoTa, DomainBatch]:
    images, labels = torch.randn(3, 12, 1, 32, 32), torch.randint(5, (2, 12))
    first, second = (Classifier(digit_body(32, features=8), CosinePredictor(8, 5, 16), 8, 5) for _ in range(2))
    batch = DomainBatch([Labelled(images[0], labels[0])], [images[1]], Labelled(images[2], labels[1]))
    return DeCoTa(first, second, threshold=0.0), batch


def test_ours_is_the_authors_formulation(benchmark: ModuleType) -> None:
    method, batch = small()
    method = method.double()
    for part in (*batch.sources, batch.labelled_target):
        part.images = part.images.double()
    batch.targets = [images.double() for images in batch.targets]
    twin = copy.deepcopy(method)
    torch.manual_seed(5)
    found = benchmark.iteration(method, batch)
    torch.manual_seed(5)
    wanted = benchmark.authors_iteration(twin.f, twin.g, batch)
    torch.testing.assert_close(torch.stack(found), torch.stack(wanted).detach())
    for ours, theirs in zip(method.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_it_holds_less_memory(benchmark: ModuleType) -> None:
    method, batch = small()
    benchmark.iteration(method, batch)  # gradients are there from now on, for both sides
    ours = peak_memory(lambda: benchmark.iteration(method, batch))
    theirs = peak_memory(lambda: benchmark.authors_iteration(method.f, method.g, batch))
    assert theirs > 2 * ours
