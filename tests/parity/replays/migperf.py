"""Replays of the MIGPerf fixtures: figures as tensors, parsed structures against the configuration."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from saccade.efficiency.migperf import (
    GpuModel,
    latency_stats,
    maximal_layouts,
    parse_exposition,
    poisson_arrivals,
    smi_text,
    throughput,
)
from tests.parity.fixtures import Fixture


def stats(fixture: Fixture) -> dict[str, Tensor]:
    config, inputs = fixture.config, fixture.inputs
    start, finish = inputs["start_finish"].tolist()
    about = config["n"], config["batch_size"], finish - start

    def row(times: Tensor) -> list[float]:
        return list(latency_stats(times.numpy()).row().values())

    results = {
        "out/mean_std_p50_p95_p99": row(inputs["latency"]),
        "out/phase_stats": [row(phase) for phase in inputs["phases"].T],
        "out/qps_inference": [throughput(*about, threads=config["threads"])],
        "out/qps_train": [throughput(*about)],
    }
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in results.items()}


def arrivals(fixture: Fixture) -> dict[str, Tensor]:
    """`seed` belongs to the first that is listed, `seed_second` to the other; files list names in sorted order, and
    where the numbers of arrivals say that it was the other way round, it was.
    """
    expected, seeds = fixture.part("out"), [fixture.config["seed"], fixture.config["seed_second"]]
    names, results = sorted(expected), {}
    for order in (names, names[::-1]):
        for seed, name in zip(seeds, order, strict=False):
            duration, rate = (float(figure) for figure in re.findall(r"\d+(?:\.\d+)?", name))
            results[f"out/{name}"] = torch.from_numpy(poisson_arrivals(rate, duration, seed)).float()
        if all(len(results[f"out/{name}"]) == len(expected[name]) for name in names):
            break
    return results


def text_of(fixture: Fixture, name: str) -> str:
    return bytes(fixture.inputs[name].tolist()).decode()


def parsing(fixture: Fixture) -> dict[str, Tensor]:
    """What the texts say, as the configuration has it; a text that is not there says nothing."""
    sources = {
        "mig_status": ("mig_mode_csv", lambda text: [list(row) for row in smi_text.mig_status(text)]),
        "gpu_instances": ("list_gpu_instances", smi_text.gpu_instances),
        "compute_instances": ("list_compute_instances", smi_text.compute_instances),
        "created_gpu": ("create_gpu_instance", smi_text.created_gpu_instances),
        "created_compute": ("create_compute_instance", smi_text.created_compute_instances),
        "device_uuid": (
            "list_devices",
            lambda text: {f"{gpu},{index}": uuid for (gpu, index), uuid in smi_text.device_uuids(text).items()},
        ),
    }
    for name, wanted in fixture.config["parsed"].items():
        source, parse = sources[name]
        ours: Any = parse(text_of(fixture, source))
        assert ours == wanted, f"{fixture.id}: {name} is {ours}, not {wanted}"
    return {}


def exposition(fixture: Fixture) -> dict[str, Tensor]:
    found = parse_exposition(text_of(fixture, "exposition"))
    ours = {f"{gpu},{instance}": fields for (gpu, instance), fields in found.items()}
    assert ours == fixture.config["parsed"], f"{fixture.id}: {ours}"
    return {}


def layouts(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    model = GpuModel.from_table(config["model"], config["compute_slices"], config["memory_slices"], config["profiles"])
    found = maximal_layouts(model, media=True)
    ours = [[str(instance) for instance in layout] for layout in found]
    assert ours == config["maximal_layouts"], f"{fixture.id}: {ours}"
    kinds = {tuple(sorted(instance.profile.name for instance in layout)) for layout in found}
    return {"out/count": torch.tensor([len(found), len(kinds)])}


KINDS = {
    "latency_stats": stats,
    "poisson_arrivals": arrivals,
    "smi_parsing": parsing,
    "dcgm_exposition": exposition,
    "layouts": layouts,
}
