"""MIGPerf where there is a GPU."""

import pytest
import torch

from saccade.efficiency.migperf import DeviceManager, benchmark

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_inference_in_its_three_ways_and_training() -> None:
    common = {"batch_sizes": (1, 16), "device": "cuda:0", "steps": 20, "warmup": 3, "sampler": 0.05}
    for settings in ({}, {"in_flight": 4}, {"threads": 2}, {"precision": "amp"}, {"mode": "train"}):
        result = benchmark("small-cnn", **common, **settings)
        assert [record.status for record in result] == ["ok", "ok"], result[0].error
        assert all(seconds > 0 for phase in result[0].timing.values() for seconds in phase["raw"])


def test_a_batch_that_does_not_fit_is_recorded() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**42 if len(x) == 2 else 2, device=x.device)

    common = {"input_spec": (3,), "device": "cuda:0", "steps": 2, "warmup": 0, "sampler": None}
    result = benchmark(model, batch_sizes=(2, 1), **common)
    assert [record.status for record in result] == ["oom", "ok"]


def test_the_gpu_is_listed_and_read() -> None:
    backend, reasons = DeviceManager.detect()
    assert backend.name in ("nvml", "smi"), reasons
    target = backend.targets()[0]
    reading = backend.read(target.key)
    assert reading["DCGM_FI_DEV_POWER_USAGE"] is None or reading["DCGM_FI_DEV_POWER_USAGE"] > 0
