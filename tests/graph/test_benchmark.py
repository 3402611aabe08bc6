import importlib.util
from pathlib import Path

import pytest
import torch

from saccade.graph import Graph
from saccade.worlds.graphs import citation_graph

FILE = Path(__file__).parents[2] / "benchmarks" / "correct_and_smooth.py"


def test_what_is_timed_computes_the_same() -> None:
    pytest.importorskip("torch_geometric")
    spec = importlib.util.spec_from_file_location("benchmark", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    world = citation_graph(0, 300)
    compared = module.comparison("small", Graph(world.edge_index, 300), 5, steps=20, target=1)
    torch.testing.assert_close(compared.ours(), compared.peer(), atol=2e-6, rtol=1e-5)
