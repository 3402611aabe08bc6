"""A file of jobs: which workload runs on which slice of which GPU. What the machine has not is left out, and named.

gpus:
- id: 0
mig: true
mps: false
devices:
- {gi_profile: 3g.40gb, job: resnet}
job_configs:
- {name: resnet, type: infer, model: {name: resnet50}, batch_sizes: [1, 2, 4]}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from saccade.efficiency.migperf.inventory import Backend, Target
from saccade.efficiency.migperf.records import RunRecord
from saccade.efficiency.migperf.runs import binding
from saccade.efficiency.migperf.sharing import Copy, run_copies

JOB_KEYS = {
    "name",
    "type",
    "ml_task",
    "model",
    "optimizer",
    "batch_size",
    "batch_sizes",
    "max_train_steps",
    "steps",
    "warmup",
    "threads",
    "arrival_rate",
    "precision",
    "input",
}
ML_TASKS = ("vision_cls", "text_cls", "embedding")


@dataclass(frozen=True)
class Job:
    """A workload of a file.

    Args:
        name: What devices call it.
        settings: Of `benchmark`, without batch sizes and device.
        batch_sizes: A run each.
    """

    name: str
    settings: Mapping[str, Any]
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Assignment:
    """A job and where it is to run.

    Args:
        job: The job.
        gpu: Index.
        profile: Of a slice; `None` for the whole GPU.
        mps: Whether the GPU is meant to be shared through MPS.
    """

    job: Job
    gpu: int
    profile: str | None
    mps: bool = False


@dataclass
class Done:
    """What came of a file.

    Args:
        records: Of the runs.
        left_out: What was not run as it was written, and why.
    """

    records: list[RunRecord] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_jobs(path: str | Path) -> list[Assignment]:
    """Read a file of jobs.

    Args:
        path: YAML.

    Returns:
        Jobs and where they are to run.

    Raises:
        FileNotFoundError: No such file.
        ValueError: What is wrong, with the place; a job that a device names and that is not there, say.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of jobs {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    if not isinstance(content, dict) or set(content) != {"gpus", "job_configs"}:
        raise ValueError(f"{path} has to hold `gpus` and `job_configs`, and nothing else")
    jobs = {}
    for number, row in enumerate(content["job_configs"] or ()):
        job = _job(row, f"{path}: job_configs[{number}]")
        if job.name in jobs:
            raise ValueError(f"{path}: there are two jobs {job.name!r}")
        jobs[job.name] = job
    found: list[Assignment] = []
    for number, gpu in enumerate(content["gpus"] or ()):
        where = f"{path}: gpus[{number}]"
        if not isinstance(gpu, dict) or not {"id", "devices"} <= set(gpu) <= {"id", "mig", "mps", "devices"}:
            raise ValueError(f"{where} has to hold `id` and `devices`, and may hold `mig` and `mps`")
        for place, device in enumerate(gpu["devices"] or ()):
            if not isinstance(device, dict) or not {"job"} <= set(device) <= {"gi_profile", "job"}:
                raise ValueError(f"{where}.devices[{place}] has to hold `job`, and may hold `gi_profile`")
            if device["job"] not in jobs:
                raise ValueError(
                    f"{where}.devices[{place}] names the job {device['job']!r}; there is {', '.join(jobs) or 'none'}"
                )
            if bool(gpu.get("mig")) != ("gi_profile" in device):
                raise ValueError(f"{where}.devices[{place}]: `gi_profile` goes with `mig: true`, and with that alone")
            found.append(
                Assignment(jobs[device["job"]], int(gpu["id"]), device.get("gi_profile"), bool(gpu.get("mps")))
            )
    if not found:
        raise ValueError(f"{path} gives no device a job")
    return found


def run_jobs(
    assignments: list[Assignment],
    backend: Backend,
    mps: bool = False,
    on_run: Callable[[str], object] | None = None,
) -> Done:
    """Run the jobs of a file; those of one GPU run at the same time, as they are meant to.

    Args:
        assignments: From `read_jobs`.
        backend: Lists what there is; where that is the CPU alone, each job is run on it once, one after the other.
        mps: Whether the daemon of MPS runs.
        on_run: Called with a line before each round.

    Returns:
        Records, and what was left out.

    Raises:
        RuntimeError: A job could not be measured.
    """
    done = Done()
    gpus = {gpu.index: gpu for gpu in backend.gpus() if gpu.kind == "cuda"}
    if not gpus:
        done.left_out += sorted(
            {
                f"GPU {one.gpu}, {one.profile or 'whole'}: there is no GPU, {one.job.name} ran on the CPU"
                for one in assignments
            }
        )
        for job in {one.job.name: one.job for one in assignments}.values():
            for size in job.batch_sizes:
                if on_run is not None:
                    on_run(f"{job.name}, batch size {size}, on the CPU")
                done.records += run_copies([Copy("cpu")], {**job.settings, "batch_sizes": [size]})
        return done
    for index in sorted({one.gpu for one in assignments}):
        own = [one for one in assignments if one.gpu == index]
        if index not in gpus:
            done.left_out += [f"{one.job.name}: there is no GPU {index}" for one in own]
            continue
        placed = _placed(own, backend, index, mps, done)
        for size in sorted({size for one, _ in placed for size in one.job.batch_sizes}):
            now = [(one, target) for one, target in placed if size in one.job.batch_sizes]
            if on_run is not None:
                on_run(f"GPU {index}, batch size {size}: {', '.join(one.job.name for one, _ in now)}")
            copies = [Copy("cuda:0", binding(target.uuid)) for _, target in now]
            done.records += run_copies(copies, [{**one.job.settings, "batch_sizes": [size]} for one, _ in now])
    return done


def _placed(
    own: list[Assignment], backend: Backend, index: int, mps: bool, done: Done
) -> list[tuple[Assignment, Target]]:
    gpu = next(gpu for gpu in backend.gpus() if gpu.index == index)
    free = list(gpu.devices)
    placed = []
    for one in own:
        if one.profile is None:
            if gpu.mig:
                done.left_out.append(f"{one.job.name}: GPU {index} is cut into slices, the file wants it whole")
                continue
            if one.mps and not mps:
                done.left_out.append(f"{one.job.name}: MPS does not run on GPU {index}; it was measured without")
            placed.append((one, Target(gpu)))
            continue
        fitting = next((device for device in free if device.profile == one.profile), None)
        if fitting is None:
            done.left_out.append(
                f"{one.job.name}: GPU {index} has no free slice {one.profile}; `saccade bench partition` prints the "
                "commands that would make it"
            )
            continue
        free.remove(fitting)
        placed.append((one, Target(gpu, fitting)))
    return placed


def _job(row: Any, where: str) -> Job:
    if not isinstance(row, dict) or not {"name", "type", "model"} <= set(row):
        raise ValueError(f"{where} has to hold `name`, `type` and `model`")
    if unknown := sorted(set(row) - JOB_KEYS):
        raise ValueError(f"{where} has unknown keys {', '.join(unknown)}; it may have {', '.join(sorted(JOB_KEYS))}")
    if row["type"] not in ("train", "infer"):
        raise ValueError(f"{where}: a type is train or infer, not {row['type']!r}")
    if row.get("ml_task", ML_TASKS[0]) not in ML_TASKS:
        raise ValueError(f"{where}: an ml_task is one of {', '.join(ML_TASKS)}, not {row['ml_task']!r}")
    model = row["model"]
    if not isinstance(model, dict) or "name" not in model or set(model) - {"name", "pretrained", "arguments"}:
        raise ValueError(f"{where}: a model holds `name`, and may hold `pretrained` and `arguments`")
    if model.get("pretrained"):
        raise ValueError(
            f"{where}: weights are random here, as they do not change what a model costs: pretrained: false"
        )
    sizes = row.get("batch_sizes", [row.get("batch_size", 1)])
    if not isinstance(sizes, list) or not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"{where}: batch sizes have to be at least 1, not {sizes}")
    settings: dict[str, Any] = {"model": model["name"], "mode": row["type"]}
    settings |= {
        key: row[key] for key in ("optimizer", "steps", "warmup", "threads", "arrival_rate", "precision") if key in row
    }
    if "max_train_steps" in row:
        settings["steps"] = row["max_train_steps"]
    if "arguments" in model:
        settings["arguments"] = [f"{key}={value}" for key, value in model["arguments"].items()]
    if "input" in row:
        settings["input_spec"] = row["input"]
    return Job(row["name"], settings, tuple(sizes))
