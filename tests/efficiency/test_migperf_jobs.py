"""Records, tables, reports, files of jobs, sharing, and the commands as a person types them."""

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

import saccade.efficiency.migperf.jobs as jobs_module
from saccade.claims import engine
from saccade.cli import main
from saccade.efficiency.claims.migperf import MIGPERF
from saccade.efficiency.migperf import (
    BenchResult,
    RunRecord,
    SimulatedBackend,
    compare,
    compare_sharing,
    copies,
    read_jobs,
    read_record,
    run_jobs,
    write_report,
)
from saccade.efficiency.migperf.records import saturation
from saccade.efficiency.migperf.report import findings
from saccade.efficiency.migperf.sharing import arrangements
from saccade.training.recipes import recipes

OURS = {name: path for name, path in recipes().items() if name.startswith("efficiency/migperf")}


def record(label: str, batch_size: int, throughput: float | None, mode: str = "infer") -> RunRecord:
    made = RunRecord(mode, "m/x", batch_size, steps=2, device={"label": label, "profile": label}, throughput=throughput)
    if throughput is None:
        made.status, made.error = "oom", "did not fit"
        return made
    seconds = batch_size / throughput
    about = {
        "mean": seconds,
        "std": 0.0,
        "p50": seconds,
        "p95": seconds,
        "p99": 2 * seconds,
        "raw": [seconds, 2 * seconds],
    }
    phases = ("data", "forward", "backward", "step") if mode == "train" else ("latency",)
    made.timing = {phase: dict(about) for phase in phases}
    made.energy = {"joules": 1.0, "per_sample": 1 / throughput, "source": "counter"}
    made.metrics = {"DCGM_FI_DEV_POWER_USAGE": {"t": [0.0, 1.0], "v": [50.0, 70.0]}}
    return made


# --- records and reports --------------------------------------------------------------------------------------------


def test_a_record_is_written_and_read_back(tmp_path: Path) -> None:
    made = record("gpu0-1g.10gb-gi7", 4, 100.0)
    path = made.write(tmp_path)
    assert path.name == "gpu0-1g.10gb-gi7_m-x_bs4_1.json"
    assert read_record(path) == made
    assert "raw" not in json.loads(made.write(tmp_path, raw=False).read_text())["timing"]["latency"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no record of a run"),
        ('{"schema": 2, "mode": "infer", "model": "m", "batch_size": 1}', "has schema 2, read is 1"),
        ('{"schema": 1, "mode": "infer", "model": "m", "batch_size": 1, "speed": 3}', "unknown keys: speed"),
        ('{"schema": 1, "mode": "infer", "model": "m", "batch_size": 1, "status": "fine"}', "a status is one of"),
    ],
)
def test_what_is_no_record(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_record(tmp_path / "r.json")
    with pytest.raises(FileNotFoundError, match="no record"):
        read_record(tmp_path / "s.json")


def test_runs_are_joined_on_model_and_batch_size() -> None:
    sweep = BenchResult((record("small", 1, 10.0), record("small", 2, 15.0), record("small", 4, None)))
    table = compare([sweep, record("whole", 1, 40.0), record("whole", 4, 90.0)], baseline="small")
    rows = {(row["batch_size"], row["device"]): row for row in table.rows}
    assert rows[1, "whole"]["throughput_ratio"] == 4.0
    assert rows[1, "whole"]["p50_ratio"] == pytest.approx(0.25)
    assert rows[1, "whole"]["energy_ratio"] == pytest.approx(0.25)
    assert rows[4, "whole"]["throughput_ratio"] is None, "the baseline did not run there"
    assert rows[4, "small"]["status"] == "oom"
    assert table.csv().count("\n") == 6
    assert table.markdown().splitlines()[0].startswith("| mode | model | batch_size | device")
    with pytest.raises(ValueError, match="no run on 'large'; there are runs on small"):
        compare([sweep], baseline="large")
    with pytest.raises(ValueError, match="no runs"):
        compare([])


def test_saturation_is_the_first_size_near_the_best() -> None:
    runs = [record("a", size, rate) for size, rate in ((1, 10.0), (2, 18.0), (4, 19.5), (8, 20.0), (16, None))]
    assert saturation(runs) == 4
    assert saturation(runs[-1:]) is None


def test_a_report_says_what_was_found_and_what_was_left_out(tmp_path: Path) -> None:
    runs = [record(label, size, size * rate) for label, rate in (("a", 10.0), ("b", 20.0)) for size in (1, 2)]
    runs += [record("a", 4, None), record("a", 1, 5.0, "train")]
    page = write_report(tmp_path, runs, baseline="a", left_out=["mig: <none>"])
    text = page.read_text()
    for words in (
        "Left out",
        "mig: &lt;none&gt;",
        "least energy at batch size 2",
        "oom: did not fit",
        "data:image/png",
    ):
        assert words in text
    assert len(list(tmp_path.glob("*_bs*.json"))) == 6
    assert "throughput_ratio" in (tmp_path / "comparison.csv").read_text()
    pictures = sorted(tmp_path.glob("picture-*.png"))
    assert len(pictures) == 4
    assert all(Image.open(path).width >= 600 for path in pictures)
    assert any("at most 40 samples a second, at batch size 2" in line for line in findings(runs))
    with pytest.raises(ValueError, match="no runs to report"):
        write_report(tmp_path, [])


# --- jobs -----------------------------------------------------------------------------------------------------------

FILE = """
gpus:
  - id: 0
    mig: true
    devices:
      - {gi_profile: 3g.40gb, job: cnn}
      - {gi_profile: 1g.10gb, job: cnn}
      - {gi_profile: 2g.20gb, job: learn}
  - id: 3
    devices: [{job: learn}]
job_configs:
  - {name: cnn, type: infer, model: {name: small-cnn, arguments: {width: 8}}, batch_sizes: [1, 2], steps: 3, warmup: 0}
  - {name: learn, type: train, model: {name: small-cnn}, batch_size: 2, max_train_steps: 2, warmup: 0, optimizer: adam}
"""


class Cut(SimulatedBackend):
    """Slices that pass for real ones."""

    def gpus(self) -> list:
        from dataclasses import replace

        return [replace(gpu, kind="cuda") for gpu in super().gpus()]


def test_jobs_run_on_their_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.yaml").write_text(FILE)
    assignments = read_jobs(tmp_path / "jobs.yaml")
    assert [(one.job.name, one.gpu, one.profile) for one in assignments][:2] == [
        ("cnn", 0, "3g.40gb"),
        ("cnn", 0, "1g.10gb"),
    ]
    assert assignments[2].job.settings["steps"] == 2
    backend = Cut(["a100-80gb"])
    backend.set_mig(0, True)
    for profile in ("1g.10gb", "3g.40gb"):
        backend.create(0, profile)
    rounds: list[list[tuple[str, dict]]] = []

    def pretend(copies: list, settings: list) -> list[RunRecord]:
        rounds.append([(c.environment["CUDA_VISIBLE_DEVICES"], s) for c, s in zip(copies, settings, strict=True)])
        return [record("x", 1, 1.0) for _ in copies]

    monkeypatch.setattr(jobs_module, "run_copies", pretend)
    done = run_jobs(assignments, backend)
    uuids = {device.profile: device.uuid for device in backend.gpus()[0].devices}
    assert [[uuid for uuid, _ in one] for one in rounds] == [[uuids["3g.40gb"], uuids["1g.10gb"]]] * 2
    assert [one[0][1]["batch_sizes"] for one in rounds] == [[1], [2]]
    assert len(done.records) == 4
    assert any("no free slice 2g.20gb" in text for text in done.left_out)
    assert any("there is no GPU 3" in text for text in done.left_out)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("job: learn}]", "job: lern}]", r"gpus\[1\].devices\[0\] names the job 'lern'; there is cnn, learn"),
        ("type: train", "type: tune", "a type is train or infer"),
        ("    mig: true\n", "", "`gi_profile` goes with `mig: true`"),
        ("batch_sizes: [1, 2]", "batch_sizes: [0]", "batch sizes have to be at least 1"),
        ("model: {name: small-cnn}", "model: {pretrained: false}", "a model holds `name`"),
        ("model: {name: small-cnn}", "model: {name: small-cnn, pretrained: true}", "weights are random"),
        ("optimizer: adam", "optimiser: adam", "unknown keys optimiser"),
        ("name: learn,", "name: cnn,", "two jobs 'cnn'"),
        ("job_configs:", "jobs:", "has to hold `gpus` and `job_configs`"),
        ("gpus:\n", "gpus: ]\n", "is no YAML"),
    ],
)
def test_files_of_jobs_that_are_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    (tmp_path / "jobs.yaml").write_text(FILE.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_jobs(tmp_path / "jobs.yaml")


@pytest.mark.parametrize("name", OURS)
def test_recipes_are_files_of_jobs_for_layouts_that_exist(name: str) -> None:
    from saccade.efficiency.migperf import plan_layout

    assignments = read_jobs(OURS[name])
    profiles = [one.profile or "" for one in assignments]
    assert plan_layout("a30" if "a30" in name else "a100-80gb", profiles)


def test_a_recipe_runs_on_the_cpu_where_there_is_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(FILE.replace("batch_sizes: [1, 2]", "batch_sizes: [2]"))
    assert main(["bench", "jobs", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert [(r["mode"], r["status"], r["samples"]) for r in page["records"]] == [("infer", "ok", 6), ("train", "ok", 4)]
    assert any("there is no GPU, cnn ran on the CPU" in text for text in page["left_out"])
    assert (tmp_path / "out" / "report.html").exists()


# --- sharing --------------------------------------------------------------------------------------------------------


def test_what_can_be_shared_is_told_by_the_machine() -> None:
    whole = SimulatedBackend(["a30"])
    found, left_out = arrangements(whole, "0", 2, mps=False)
    assert [one.name for one in found] == ["alone", "time-slicing"]
    assert [text.split(":")[0] for text in left_out] == ["mps", "mig"]
    assert [one.name for one in arrangements(whole, "0", 2, mps=True)[0]] == ["alone", "mps"]
    whole.set_mig(0, True)
    uuids = []
    for _ in range(2):
        whole.create(0, "1g.6gb")
        uuids = [device.uuid for device in whole.gpus()[0].devices]
    found, left_out = arrangements(whole, "0", 2, mps=False)
    assert [[c.environment["CUDA_VISIBLE_DEVICES"] for c in one.copies] for one in found] == [uuids]
    assert "cannot be shared as a whole" in left_out[0]
    found, left_out = arrangements(whole, "cpu", 2, cores=[4, 5, 6])
    assert [one.name for one in found] == ["alone", "shared cores", "own cores"]
    assert [copy.cores for copy in found[2].copies] == [(4,), (5,)]
    assert "own cores: 4 cores would be needed" in arrangements(whole, "cpu", 4, cores=[0])[1][-1]
    with pytest.raises(ValueError, match="at least 2 copies"):
        arrangements(whole, "cpu", 1)


@pytest.mark.usefixtures("unchecked")  # a text in memory is no file
def test_a_copy_waits_until_all_are_ready(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"model": "empty", "batch_sizes": [3], "steps": 4, "warmup": 0, "sampler": None, "input_spec": [2]}
    told = io.StringIO(
        json.dumps({**settings, "cores": sorted(os.sched_getaffinity(0)), "torch_threads": 1}) + "\ngo\n"
    )
    out = io.StringIO()
    assert copies.main(told, out) == 0
    ready, answer = out.getvalue().splitlines()
    assert ready == "ready"
    assert RunRecord.from_dict(json.loads(answer)).samples == 12
    told = io.StringIO(json.dumps({**settings, "steps": 0, "cores": [], "torch_threads": 0}) + "\n")
    assert copies.main(told, out) == 1
    assert "steps and threads have to be at least 1" in out.getvalue()


def test_copies_run_at_the_same_time_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one core: copies share it
    words = [
        "bench",
        "share",
        "empty",
        "--copies",
        "2",
        "--steps",
        "20",
        "--warmup",
        "1",
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert main(words) == 0
    page = json.loads(capsys.readouterr().out)
    assert [row["copies"] for row in page["rows"]] == [1, 2]
    assert all(row["failed"] == 0 and row["throughput"] > 0 for row in page["rows"])
    assert "mig: there is no GPU" in page["left_out"]
    assert "copies that share" in (tmp_path / "report.html").read_text()


def test_a_copy_that_cannot_be_measured_says_why() -> None:
    with pytest.raises(RuntimeError, match="no model 'resnet1x8'"):
        compare_sharing("resnet1x8", copies=2, steps=1)


# --- commands -------------------------------------------------------------------------------------------------------


def test_infer_and_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--steps", "4", "--warmup", "1", "--period", "0.1", "--out", str(tmp_path)]
    assert (
        main(["bench", "infer", "small-cnn", "width=8", "--batch-sizes", "1,2", "--device", "cpu", *common, "--json"])
        == 0
    )
    page = json.loads(capsys.readouterr().out)
    assert [row["batch_size"] for row in page["records"]] == [1, 2]
    assert page["left_out"]
    assert main(["bench", "train", "small-cnn", "--batch-sizes", "2", "--no-raw", *common]) == 0
    assert "Training of small-cnn on cpu" in capsys.readouterr().out
    files = sorted(str(path) for path in tmp_path.glob("*.json"))
    assert len(files) == 3
    assert main(["bench", "compare", *files, "--baseline", "cpu"]) == 0
    assert "throughput_ratio" in capsys.readouterr().out
    assert main(["bench", "compare", *files, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("mode,model")
    assert main(["bench", "infer", "torch.nn.Linear", "in_features=3", "out_features=2", "--input", "4", *common]) == 1
    assert "error: mat1 and mat2" in capsys.readouterr().out


def test_devices_plan_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "devices", "--simulate", "a100-80gb,a30", "--json"]) == 0
    assert [gpu["mig"] for gpu in json.loads(capsys.readouterr().out)["devices"]] == [False, False]
    assert main(["bench", "devices"]) == 0
    assert capsys.readouterr().out
    assert main(["bench", "plan", "a100-80gb", "3g.40gb", "2g.20gb", "1g.10gb"]) == 0
    assert "[3333221.] 3g.40gb:0 2g.20gb:4 1g.10gb:6, 1 compute slice(s) idle" in capsys.readouterr().out
    assert main(["bench", "plan", "a100-80gb", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["layouts"]) == 78
    assert main(["bench", "serve-metrics", "--simulate", "a30", "--once"]) == 0
    assert "DCGM_FI_DEV_POWER_USAGE{" in capsys.readouterr().out


def test_a_layout_is_changed_only_with_flag_and_confirmation(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "partition", "3g.40gb", "1g.10gb", "--simulate", "a100-80gb"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "nvidia-smi mig -i 0 -cgi 3g.40gb:0,1g.10gb:4 -C" in printed
    assert "nothing was changed: it takes --yes-change-mig" in printed
    uuid = SimulatedBackend(["a100-80gb"]).gpus()[0].uuid
    assert main([*words, "--yes-change-mig", "--json"]) == 2
    assert "not confirmed: nothing was changed" in capsys.readouterr().err
    assert main([*words, "--yes-change-mig", "--confirm", "GPU-other"]) == 2
    assert f"GPU 0 is {uuid}: nothing was changed" in capsys.readouterr().err
    assert main([*words, "--yes-change-mig", "--confirm", uuid, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] is True
    assert main(["bench", "partition", "--destroy", "--simulate", "a30"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["infer", "small-cnn", "--batch-sizes", "1,x"], "--batch-sizes are whole numbers"),
        (["infer", "small-cnn", "--input", "3,x"], "--input is the shape"),
        (["infer", "small-cnn", "--period", "-1"], "--period has to be at least 0"),
        (["infer", "small-cnn", "--device", "gpu9"], "no device 'gpu9'"),
        (["infer", "small-cnn", "--tokens", "4", "--input", "3"], "--tokens is a length"),
        (["train", "saccade.efficiency.migperf.workloads.SmallCNN", "depth=3"], "cannot be built so"),
        (["plan", "a100-80gb", "4g.40gb", "4g.40gb"], "4g.40gb (number 2) does not fit"),
        (["partition"], "name profiles"),
        (["partition", "1g.10gb", "--gpu", "4", "--simulate", "a100"], "no GPU 4; there is 0"),
        (["compare", "nothing.json"], "no record nothing.json"),
        (["jobs", "nothing"], "no recipe 'nothing'"),
        (["devices", "--trace", "none.json"], "no trace none.json"),
        (["nothing"], "no benchmark of 'nothing'"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_slug_still_means_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "migperf", "--match", "no such comparison", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


# --- the claim ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "arms"),
    [("cpu", {"batch-1", "batch-32"}), ("tenants", {"shared", "isolated"}), ("layouts", {"first-fit", "planner"})],
)
def test_the_claim_runs(data: str, arms: set[str], tmp_path: Path) -> None:
    path = "saccade.efficiency.claims.migperf:MIGPERF"
    result = engine.reproduce(path, on=data, budget="smoke", jobs=0, out=tmp_path)
    assert {cell.arm for cell in result.cells} == arms
    figures = {cell.arm: cell.metrics for cell in result.cells}
    if data == "cpu":
        assert [len(cell.pictures) for cell in result.cells if cell.arm == "batch-32"] == [2]
    elif data == "tenants":
        assert figures["shared"]["calm"] < figures["isolated"]["calm"]
    else:
        assert figures["planner"]["agree"] == 100
    assert {e.arm for e in MIGPERF.for_data(data).expectations if data in e.on} <= arms
