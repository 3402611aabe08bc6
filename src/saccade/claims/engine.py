"""The reproduction engine: every arm at every seed, in parallel processes, resumable at any point."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from datetime import date
from multiprocessing import connection
from pathlib import Path
from queue import Empty
from typing import Any

import numpy
import torch

import saccade
from saccade.bench import hardware
from saccade.claims.cells import CellResult, Job, Progress, finished, load_claim, run_cell, write_atomically
from saccade.claims.claim import BudgetName
from saccade.claims.verdict import Judged, judge, overall


@dataclass(frozen=True)
class Result:
    """A finished run: figures, verdict and where they come from."""

    slug: str
    data: str
    budget: BudgetName
    seeds: int
    cells: list[CellResult]
    judged: list[Judged]
    verdict: str
    date: str
    versions: dict[str, str]
    hardware: str
    seconds: float
    command: str
    folder: Path = field(compare=False)

    def summary(self, arm: str, metric: str) -> tuple[float, float]:
        """Mean and standard deviation over seeds of one arm's metric."""
        values = [cell.metrics[metric] for cell in self.cells if cell.arm == arm]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}


def reproduce(
    dotted: str,
    *,
    on: str = "",
    budget: BudgetName = "small",
    seeds: int | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    out: Path = Path("runs"),
    data_root: Path = Path(),
    overrides: dict[str, Any] | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Result:
    """Run a claim, or what is left of it.

    Each cell's result is written as it ends. The same call after a kill takes up what is there, and gives the same
    figures as an uninterrupted one: a cell is a pure function of its arm, seed, data and settings.

    Args:
        dotted: Where the claim is, `package.module:NAME`.
        on: Name of the data; the embedded default where empty.
        budget: How much to spend. `smoke` gives no verdict.
        seeds: Number of seeds; the data's or the budget's own where `None`.
        jobs: Processes that run at a time, one thread each; one a core where `None`; 0 runs in this process.
        device: Where to compute.
        out: Folder for results.
        data_root: Root of the real data.
        overrides: Settings that replace the budget's.
        progress: Called with a cell's name and the share of it that is done; first with every cell of the run.
        announce: Called with one line, such as what is resumed.

    Returns:
        Figures and verdict; `result.json` in the run's folder holds the same.

    Raises:
        ValueError: Unknown data, budget or seeds below 1.
        FileNotFoundError: The data that the claim needs is not under the data root.
        RuntimeError: A cell failed; the others are kept, and the message names the log.
    """
    claim = load_claim(dotted)
    data = on or claim.default_data
    if data not in claim.data:
        raise ValueError(f"{claim.slug} has no data {data!r}; there is {', '.join(claim.data)}")
    claim = claim.for_data(data)
    if budget not in claim.budgets:
        raise ValueError(f"no budget {budget!r}: smoke, small or full")
    source = claim.data[data]
    if source.needs and not (data_root / source.needs).exists():
        raise FileNotFoundError(
            f"--on {data} needs the folder {source.needs!r} under the data root {data_root} ({source.title}); "
            "set SACCADE_DATA or --data-root"
        )
    number = seeds if seeds is not None else 1 if budget == "smoke" else source.seeds or claim.budgets[budget].seeds
    if number < 1:
        raise ValueError(f"the number of seeds is {number}; at least 1 is needed")
    folder = out / "reproduce" / claim.slug / f"{data}-{budget}"
    cells = [
        Job(dotted, arm, seed, data, budget, device, data_root.resolve(), folder.resolve(), overrides or {})
        for seed in range(number)
        for arm in claim.arms
    ]
    check_writable(folder)
    start = time.perf_counter()
    known = {job.name: result for job in cells if (result := finished(claim, job))}
    if known and announce:
        announce(f"resuming: {len(known)} of {len(cells)} cells are there")
    if progress:
        for job in cells:
            progress(job.name, float(job.name in known))
    left = [job for job in cells if job.name not in known]
    known.update(run_all(left, jobs=jobs, progress=progress))
    results = [known[job.name] for job in cells]
    figures = {arm: {c.seed: c.metrics for c in results if c.arm == arm} for arm in claim.arms}
    judged = [] if budget == "smoke" else judge(claim, figures, data)
    command = f"saccade reproduce {claim.slug} --on {data} --budget {budget} --seeds {number}"
    whole = Result(
        slug=claim.slug,
        data=data,
        budget=budget,
        seeds=number,
        cells=results,
        judged=judged,
        verdict=overall(judged) if judged else "not judged",
        date=date.today().isoformat(),
        versions={"saccade": saccade.__version__, "torch": torch.__version__, "numpy": numpy.__version__}
        | {"python": platform.python_version()},
        hardware=hardware(device),
        seconds=time.perf_counter() - start if len(left) == len(cells) else sum(c.seconds for c in results),
        command=command + ("" if device == "cpu" else f" --device {device}"),
        folder=folder,
    )
    write_atomically(folder / "result.json", json.dumps(whole.json(), indent=1))
    return whole


def run_all(left: Sequence[Job], *, jobs: int | None, progress: Progress | None) -> dict[str, CellResult]:
    """Run cells, `jobs` at a time; every one is tried before a failure is raised."""
    report = progress or (lambda name, share: None)
    done: dict[str, CellResult] = {}
    failed: dict[str, Path] = {}
    if not left:
        return done
    if jobs == 0:
        for job in left:
            done[job.name] = run_cell(job, report)
            report(job.name, 1.0)
        return done
    context = multiprocessing.get_context("spawn")
    channel = context.Queue()
    count = min(jobs or os.cpu_count() or 1, len(left))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(channel,))
    try:
        running: dict[Future[CellResult], Job] = {pool.submit(_run_in_worker, job): job for job in left}
        while running:
            ended, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(channel, report)
            for future in ended:
                job = running.pop(future)
                try:
                    done[job.name] = future.result()
                    report(job.name, 1.0)
                except BrokenProcessPool:
                    raise RuntimeError(
                        f"a worker process died while {job.name} ran (out of memory?); the same command resumes"
                    ) from None
                except Exception:
                    log = job.folder / "cells" / f"{job.name}.log"
                    write_atomically(log, traceback.format_exc())
                    failed[job.name] = log
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if failed:
        name, log = next(iter(failed.items()))
        reason = log.read_text().strip().splitlines()[-1]
        raise RuntimeError(f"{len(failed)} cell(s) failed, the first is {name}: {reason} (whole: {log})")
    return done


def check_writable(folder: Path) -> None:
    """Raise an `OSError` that names the folder where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write into the output folder {folder}: {error.strerror or error}") from None


_channel: Any = None


def _start_worker(channel: Any) -> None:
    """In a new worker: remember the channel, compute on one thread, and end when the parent does, even by a kill."""
    global _channel
    _channel = channel
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _run_in_worker(job: Job) -> CellResult:
    return run_cell(job, lambda name, share: _channel.put((name, share)))


def _drain(channel: Any, report: Progress) -> None:
    while True:
        try:
            report(*channel.get_nowait())
        except Empty:
            return
