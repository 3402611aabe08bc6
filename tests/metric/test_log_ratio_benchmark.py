import importlib.util
from pathlib import Path

import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "log_ratio.py"


def test_what_is_timed_computes_the_same() -> None:
    spec = importlib.util.spec_from_file_location("benchmark", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for compared in module.comparisons():
        torch.testing.assert_close(compared.ours(), compared.peer(), atol=2e-6, rtol=1e-3)
