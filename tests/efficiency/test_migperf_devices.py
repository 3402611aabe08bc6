"""Backends, parsers, partitioning, exporter: on simulated GPUs and on a recorded NVML."""

import json
import shlex
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from saccade.efficiency.migperf import (
    BackendUnavailable,
    ChangesNotAllowed,
    CpuBackend,
    DeviceManager,
    ExporterBackend,
    GpuLost,
    NvmlBackend,
    PartitionController,
    PrometheusExporter,
    RecordedBackend,
    RunRecord,
    Sampler,
    SimulatedBackend,
    SmiBackend,
    exposition,
    mps_running,
    open_backend,
    parse_exposition,
    record_trace,
    smi_text,
)
from saccade.efficiency.migperf.inventory import ACTIVITY, ENERGY, MEMORY_USED, POWER, UTILISATION
from saccade.efficiency.migperf.simulated import Completed, Refused
from tests.efficiency.fake_nvml import FakeNvml


def cut(*profiles: str, model: str = "a100-80gb") -> SimulatedBackend:
    backend = SimulatedBackend([model])
    backend.set_mig(0, True)
    for profile in profiles:
        backend.create(0, profile)
    return backend


# --- NVML -----------------------------------------------------------------------------------------------------------


def test_nvml_lists_gpus_and_slices_with_ids_that_are_not_in_order() -> None:
    first, second = NvmlBackend(FakeNvml()).gpus()
    assert (first.name, first.mig, first.mig_pending, first.memory_total) == ("NVIDIA A30", True, True, 24 * 1024)
    assert [(d.index, d.gi_id, d.profile, d.compute_slices) for d in first.devices] == [
        (0, 5, "1g.6gb", 1),
        (2, 1, "2g.12gb", 2),
    ]
    assert (second.name, second.mig, second.devices) == ("NVIDIA T4", None, ())


def test_what_nvml_does_not_support_is_none_and_not_asked_for_again() -> None:
    binding = FakeNvml()
    backend = NvmlBackend(binding)
    for _ in range(3):
        own, whole, other = backend.read((0, 1)), backend.read((0, None)), backend.read((1, None))
    assert own[UTILISATION] is None
    assert whole[UTILISATION] is None
    assert (own[POWER], own[MEMORY_USED]) == (61.5, 1024.0)
    assert other[UTILISATION] == 42
    assert other[ENERGY] is None
    assert binding.calls.count("utilisation") == 1 + 3  # once for the GPU that is cut, each time for the other
    assert binding.calls.count("energy") == 6 + 1
    assert binding.calls.count("handle") == 2, "handles are kept"


def test_pcie_bytes_are_the_integral_of_the_throughput() -> None:
    now = [0.0]
    backend = NvmlBackend(FakeNvml(), clock=lambda: now[0])
    assert backend.read((0, None))["DCGM_FI_PROF_PCIE_TX_BYTES"] == 0
    now[0] = 2.0
    reading = backend.read((0, None))
    assert reading["DCGM_FI_PROF_PCIE_TX_BYTES"] == 2 * 10 * 1024
    assert reading["DCGM_FI_PROF_PCIE_RX_BYTES"] == 2 * 20 * 1024


def test_a_lost_gpu_ends_sampling_with_a_marked_gap() -> None:
    backend = NvmlBackend(FakeNvml(lost_after=2))
    sampler = Sampler(backend, period=60, targets=[backend.targets()[0]])
    with sampler:
        sampler.take()
        sampler.take()
    key = sampler.targets[0].key
    assert len(sampler.series[key][POWER]["v"]) == 2
    assert "GpuLost: GPU is lost" in sampler.gaps[key][1]
    with pytest.raises(GpuLost):
        backend.read(key)


def test_without_binding_or_driver_there_is_a_sentence_and_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    with pytest.raises(BackendUnavailable, match=r"not installed \(pip install 'saccade\[gpu-bench\]'\)"):
        NvmlBackend()
    with pytest.raises(BackendUnavailable, match="NVML cannot be read: Uninitialized"):
        NvmlBackend(FakeNvml(driver=False))
    missing = lambda: SmiBackend(lambda command: Completed(127, "", "nvidia-smi is not installed"))  # noqa: E731
    backend, reasons = DeviceManager.detect([NvmlBackend, missing])
    assert backend.name == "cpu"
    assert ["gpu-bench" in reasons[0], "nvidia-smi is not installed" in reasons[1]] == [True, True]
    assert DeviceManager.detect([lambda: NvmlBackend(FakeNvml())])[0].name == "nvml"


# --- nvidia-smi -----------------------------------------------------------------------------------------------------


def test_the_parsers_read_what_the_simulated_tool_prints() -> None:
    simulated = cut("1g.10gb", "3g.40gb", "1g.10gb+me")
    read = SmiBackend(simulated.run).gpus()[0]
    wanted = simulated.gpus()[0]
    assert (read.name, read.uuid, read.mig) == (wanted.name, wanted.uuid, True)
    for own, other in zip(read.devices, wanted.devices, strict=True):
        assert (own.uuid, own.profile, own.gi_id, own.placement) == (
            other.uuid,
            other.profile,
            other.gi_id,
            other.placement,
        )
        assert own.compute_slices == other.compute_slices
    assert len(smi_text.compute_instances(simulated.run(["nvidia-smi", "mig", "-lci"]).stdout)) == 3


def test_readings_of_the_tool() -> None:
    simulated = cut("3g.40gb")
    backend = SmiBackend(simulated.run)
    simulated.load((0, 1), 1.0, 512.0)
    reading = backend.read((0, 1))
    assert (reading[POWER], reading[MEMORY_USED], reading[UTILISATION]) == (
        pytest.approx(60 + 340 * 3 / 7, abs=0.01),
        512,
        None,
    )
    whole = backend.read((0, None))
    assert whole[MEMORY_USED] == 512
    assert whole["DCGM_FI_DEV_GPU_TEMP"] is None, "[N/A] is not 0"


def test_names_with_media_engines_and_fractions_are_read() -> None:
    text = (
        "|   0  MIG 1g.10gb+me      20        7         6:1     |\n"
        "|   1  MIG 1c.3g.40gb       0        2         4:4     |\n"
    )
    assert [row["name"] for row in smi_text.gpu_instances(text)] == ["MIG 1g.10gb+me", "MIG 1c.3g.40gb"]
    made = "Successfully created GPU instance ID  7 on GPU  1 using profile MIG 1g.10gb+me (ID 20)\n"
    assert smi_text.created_gpu_instances(made) == [
        {"gpu_id": 1, "name": "MIG 1g.10gb+me", "profile_id": 20, "gi_id": 7}
    ]


def test_gpus_without_slices_have_none() -> None:
    assert smi_text.gpu_instances("No GPU instances found: Not Found\n") == []
    assert smi_text.compute_instances("No compute instances found: Not Found\n") == []
    two = (
        "GPU 0: NVIDIA A100 (UUID: GPU-a)\n  MIG 1g.10gb     Device  0: (UUID: MIG-b)\nGPU 1: NVIDIA T4 (UUID: GPU-c)\n"
    )
    assert smi_text.device_uuids(two) == {(0, None): "GPU-a", (0, 0): "MIG-b", (1, None): "GPU-c"}


def test_failure_is_told_by_the_exit_code() -> None:
    said = {"-L": "GPU 0: Failed No Name (UUID: GPU-a)\n"}
    backend = SmiBackend(lambda command: Completed(0, said.get(command[-1], "")))
    assert backend.gpus()[0].name == "Failed No Name"
    with pytest.raises(BackendUnavailable, match="ended with 9: driver"):
        SmiBackend(lambda command: Completed(9, "all is well", "driver"))


def test_devices_are_listed_anew_and_not_taken_for_instance_ids() -> None:
    simulated = cut("1g.10gb", "3g.40gb")
    backend = SmiBackend(simulated.run)
    before = {device.uuid: device.gi_id for device in backend.gpus()[0].devices}
    assert list(before.values()) == [7, 1], "in the order of devices, not of ids"
    simulated.destroy_compute(0, 7)
    simulated.destroy(0, 7)
    (left,) = backend.gpus()[0].devices
    assert (left.index, left.gi_id) == (0, before[left.uuid])


# --- partitioning ---------------------------------------------------------------------------------------------------


def test_a_gpu_is_cut_and_made_whole_again() -> None:
    backend = SimulatedBackend(["a100-80gb"])
    controller = PartitionController(backend, allow_changes=True)
    applied = controller.apply(controller.repartition(0, ["1g.10gb", "4g.40gb"]))
    assert applied.ok
    assert [str(instance) for instance in backend.instances(0).values()] == ["1g.10gb:4", "4g.40gb:0"]
    refused = controller.apply(controller.destroy(0))
    assert not refused.ok
    assert "in use: destroy its compute instances first" in refused.refusal
    gi = next(iter(backend.instances(0)))
    assert controller.apply(controller.destroy_compute(0, gi, [0])).ok
    assert backend.compute(0, gi) == ()
    assert controller.apply(controller.create_compute(0, gi)).ok
    assert backend.compute(0, gi) == (0,)
    assert controller.apply(controller.repartition(0, ["2g.20gb"] * 3)).ok
    assert len(backend.gpus()[0].devices) == 3
    for change in (controller.destroy_compute(0), controller.destroy(0), controller.disable(0)):
        assert controller.apply(change).ok
    assert backend.gpus()[0].mig is False
    assert "Placements: {0,4}:4" in controller.listing("lgipp", 0).stdout
    assert "3g.40gb" in controller.listing("lgip").stdout


def test_nothing_is_changed_without_the_flag() -> None:
    backend = SimulatedBackend(["a30"])
    ran: list[list[str]] = []
    controller = PartitionController(backend, run=lambda command: ran.append(list(command)) or Completed(0))
    change = controller.repartition(0, ["2g.12gb"])
    with pytest.raises(ChangesNotAllowed, match=r"(?s)--yes-change-mig.*nvidia-smi mig -i 0 -cgi 2g\.12gb:0 -C"):
        controller.apply(change)
    assert isinstance(ChangesNotAllowed(""), PermissionError)
    assert ran == []
    assert backend.gpus()[0].mig is False


def test_commands_are_those_of_the_tool() -> None:
    controller = PartitionController(cut("1g.10gb"))
    assert controller.enable(0).text == "nvidia-smi -i 0 -mig 1"
    assert controller.create(0, ["3g.40gb"], compute=False).text == "nvidia-smi mig -i 0 -cgi 3g.40gb:0"
    assert controller.create_compute(0, 5, ["1c.3g.40gb"]).text == "nvidia-smi mig -i 0 -gi 5 -cci 1c.3g.40gb"
    assert controller.destroy_compute(0, 5, [0, 1]).text == "nvidia-smi mig -dci -ci 0,1 -gi 5 -i 0"
    assert controller.destroy(0, [5]).text == "nvidia-smi mig -dgi -gi 5 -i 0"
    assert controller.start_mps(0).text == "env CUDA_VISIBLE_DEVICES=0 nvidia-cuda-mps-control -d"
    assert shlex.split(controller.stop_mps().text)[:2] == ["sh", "-c"]


def test_no_command_resets_a_gpu_or_asks_for_root() -> None:
    controller = PartitionController(cut("1g.10gb"))
    changes = [
        controller.enable(0),
        controller.disable(0),
        controller.repartition(0, ["3g.40gb"]),
        controller.destroy(0),
    ]
    changes += [controller.destroy_compute(0), controller.start_mps(0), controller.stop_mps()]
    words = [word for change in changes for command in change.commands for word in command]
    assert not {"sudo", "-r", "--gpu-reset"} & set(words)


@pytest.mark.parametrize(
    ("backend", "gpu", "profiles", "message"),
    [
        (CpuBackend(), 0, ["1g.10gb"], "no GPU 0; there is none on this machine"),
        (SimulatedBackend(["a30"]), 1, ["1g.6gb"], "no GPU 1; there is 0"),
        (SimulatedBackend(["a30"]), 0, ["1g.10gb"], "offers no profile"),
    ],
)
def test_plans_that_cannot_be(backend: object, gpu: int, profiles: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartitionController(backend).create(gpu, profiles)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a listing is lgi"):
        PartitionController(SimulatedBackend()).listing("dgi")


def test_the_simulated_gpu_keeps_the_rules() -> None:
    backend = SimulatedBackend(["a100-80gb"], seed=3)
    with pytest.raises(Refused, match="not in MIG mode"):
        backend.create(0, "1g.10gb")
    backend.attach(0, clients=1)
    backend.set_mig(0, True)
    assert (backend.gpus()[0].mig, backend.gpus()[0].mig_pending) == (False, True)
    backend.attach(0, clients=0)
    assert backend.gpus()[0].mig
    gi = backend.create(0, "9")  # by the driver's number
    assert str(backend.instances(0)[gi]) == "3g.40gb:0"
    other = backend.create(0, "3g.40gb", start=4)
    assert str(backend.instances(0)[other]) == "3g.40gb:4"
    with pytest.raises(Refused, match="insufficient resources"):
        backend.create(0, "1g.10gb")
    with pytest.raises(ValueError, match="may begin at 0, 4, not at 1"):
        backend.create(0, "3g.40gb", start=1)
    with pytest.raises(Refused, match="still has GPU instances"):
        backend.set_mig(0, False)
    with pytest.raises(Refused, match="no compute left"):
        backend.create_compute(0, gi)
    again = SimulatedBackend(["a100-80gb"], seed=3)
    again.set_mig(0, True)
    again.create(0, "3g.40gb")
    assert again.gpus()[0].devices[0].uuid == backend.gpus()[0].devices[0].uuid
    assert backend.run(["nvidia-smi", "mig", "-i", "7", "-lgi"]).returncode != 0
    assert backend.run(["other"]).returncode == 127


def test_power_and_energy_of_the_simulation() -> None:
    backend = cut("4g.40gb", "3g.40gb")
    four, three = backend.instances(0)
    backend.load((0, four), 0.5)
    backend.load((0, three), 1.0)
    load = (0.5 * 4 + 1.0 * 3) / 7
    assert backend.power(0) == pytest.approx(60 + 340 * load)
    backend.advance(10)
    assert backend.read((0, four))[ENERGY] == pytest.approx(1e4 * (60 + 340 * load))
    assert backend.read((0, four))[ACTIVITY] == 0.5
    assert backend.read((0, None))[UTILISATION] is None
    backend.lose(0)
    with pytest.raises(GpuLost):
        backend.read((0, None))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.load((0, None), 1.5), "activity is a share from 0 to 1, not 1.5"),
        (lambda b: b.load((0, 4), 0.5), "no GPU instance 4; there is none"),
        (lambda b: b.advance(-1), "time cannot go back"),
        (lambda b: b.create(2, "1g.6gb"), "no GPU 2"),
        (lambda b: SimulatedBackend(["a30"], supports=["POWER"]), "unknown fields POWER"),
        (lambda b: b.find("GPU-none"), "no device 'GPU-none'; there is gpu0"),
        (lambda b: Sampler(b, period=0), "period has to be above 0"),
        (lambda b: Sampler(b, targets=[]), "nothing to sample"),
        (lambda b: PrometheusExporter(port=70000), "a port is a number"),
        (lambda b: record_trace(b, 0), "readings have to be at least 1"),
        (lambda b: open_backend(simulate="a30", trace="x"), "not both"),
        (lambda b: open_backend(simulate="a30", exporter="localhost"), "begins with http"),
        (lambda b: open_backend(simulate="b9"), "no table of slices"),
        (lambda b: parse_exposition('X{gpu="a"} 1'), "line 1 is no sample"),
        (lambda b: parse_exposition("\nX{ 1"), "line 2 is no sample"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(SimulatedBackend(["a30"]))  # type: ignore[operator]


def test_devices_are_found_by_index_uuid_and_label() -> None:
    backend = cut("1g.10gb", "1g.10gb")
    gpu = backend.gpus()[0]
    assert backend.find("0").uuid == backend.find("cuda:0").uuid == backend.find(gpu.uuid[:14]).uuid == gpu.uuid
    own = backend.find(gpu.devices[1].uuid)
    assert own.label == "gpu0-1g.10gb-gi8"
    assert backend.find(own.label).key == (0, 8)
    assert own.record()["siblings"] == ["1g.10gb"]
    assert len(backend.targets()) == 2


def test_mps_is_told_by_its_daemon(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "cmdline").write_bytes(b"bash\0-c\0nvidia-cuda-mps-control")
    assert not mps_running(tmp_path)
    (tmp_path / "13").mkdir()
    (tmp_path / "13" / "cmdline").write_bytes(b"/usr/bin/nvidia-cuda-mps-control\0-d\0")
    assert mps_running(tmp_path)


# --- CPU, traces, exporter ------------------------------------------------------------------------------------------


def test_the_cpu_says_what_it_can(tmp_path: Path) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "energy_uj").write_text("5000000")
    (package / "max_energy_range_uj").write_text("6000000")
    backend = CpuBackend(tmp_path)
    first = backend.read((0, None))
    (package / "energy_uj").write_text("1000000")  # it began again
    second = backend.read((0, None))
    assert (first[ENERGY], second[ENERGY]) == (5000.0, 7000.0)
    assert first[UTILISATION] is None
    assert second[UTILISATION] is not None
    assert second[MEMORY_USED] is None or second[MEMORY_USED] > 10
    assert CpuBackend(tmp_path / "none").read((0, None))[ENERGY] is None


def test_a_trace_replays_what_was(tmp_path: Path) -> None:
    backend = cut("3g.40gb")
    backend.load((0, 1), 1.0, 100.0)
    trace = record_trace(backend, 2, sleep=backend.advance, clock=lambda: backend.now)
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(trace))
    replayed = RecordedBackend(path)
    assert replayed.gpus() == backend.gpus()
    assert [replayed.read((0, 1))[ENERGY] for _ in range(3)] == pytest.approx(
        [0, 500 * backend.power(0), 500 * backend.power(0)]
    )
    backend.lose(0)
    with pytest.raises(GpuLost, match="was lost when this was recorded"):
        RecordedBackend(record_trace(backend, 1)).read((0, 1))
    with pytest.raises(ValueError, match="no reading of"):
        replayed.read((4, None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "a trace holds"),
        ('{"schema": 2, "gpus": [], "readings": []}', "a trace holds"),
        ('{"schema": 1, "gpus": [{"name": 3}], "readings": []}', "not a GPU"),
        ('{"schema": 1, "gpus": [], "readings": [{}]}', "each reading of a trace holds"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        RecordedBackend(tmp_path / "t.json")
    with pytest.raises(FileNotFoundError, match="no trace"):
        RecordedBackend(tmp_path / "u.json")


def test_what_is_served_can_be_read_back() -> None:
    backend = cut("3g.40gb", "2g.20gb")
    backend.load((0, 1), 0.25, 300.0)
    text = exposition(backend, host='a "b"')
    assert 'Hostname="a \\"b\\""' in text
    found = parse_exposition(text)
    assert set(found) == {(0, 1), (0, 3)}
    assert found[0, 1][ACTIVITY] == 0.25
    assert UTILISATION not in found[0, 1], "what is not known is not served"
    assert text.count("# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter") == 1
    read = ExporterBackend(backend, lambda: text).read((0, 1))
    assert read[MEMORY_USED] == 300
    with pytest.raises(GpuLost):
        ExporterBackend(backend, lambda: "").read((0, 1))


def test_the_exporter_serves_readings_and_figures_of_runs() -> None:
    record = RunRecord("infer", "m", 4, steps=10, samples=40, throughput=20.0, device={"label": "cpu"})
    record.timing = {"latency": {"mean": 0.2, "std": 0.0, "p50": 0.1, "p95": 0.3, "p99": 0.4}}
    with PrometheusExporter(port=0, backend=SimulatedBackend(["a30"])) as exporter:
        exporter.add(record)
        page = urlopen(exporter.url).read().decode()
        with pytest.raises(HTTPError):
            urlopen(exporter.url.replace("/metrics", "/other"))
    labels = 'model="m",mode="infer",batch_size="4",device="cpu"'
    assert f"saccade_bench_latency_seconds{{{labels}" in page
    assert 'quantile="0.99"} 0.4' in page
    assert "# TYPE saccade_bench_samples_total counter" in page
    assert [line.split()[-1] for line in page.splitlines() if line.startswith("saccade_bench_throughput{")] == ["20"]
    assert parse_exposition(page)[0, None][POWER] == 30
