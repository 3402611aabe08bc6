"""Computing one cell, arm by seed: seeded, on one thread, and on disk at the moment it ends."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import saccade
from saccade.claims.claim import BudgetName, Cell, Claim

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Job:
    """What identifies a cell on disk; small and picklable, so that it travels to a worker process."""

    claim: str
    arm: str
    seed: int
    data: str
    budget: BudgetName
    device: str
    data_root: Path
    folder: Path
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Arm and seed, as in the file names."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def file(self) -> Path:
        """The result."""
        return self.folder / "cells" / f"{self.name}.json"


@dataclass(frozen=True)
class CellResult:
    """What is kept of a cell."""

    arm: str
    seed: int
    metrics: dict[str, float]
    curves: dict[str, list[tuple[float, float]]]
    pictures: dict[str, str]
    seconds: float
    fingerprint: str


def load_claim(dotted: str) -> Claim:
    """The claim that a dotted path `package.module:NAME` names."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


@lru_cache(maxsize=1)
def source_hash() -> str:
    """A hash of the package's sources: a result computed by other code is not taken for this code's."""
    digest = hashlib.sha256()
    for path in sorted(Path(saccade.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def settings_of(claim: Claim, job: Job) -> dict[str, Any]:
    """The budget's settings, overridden by the data's, overridden by the caller's."""
    return {**claim.budgets[job.budget].settings, **claim.data[job.data].settings, **job.overrides}


def fingerprint(claim: Claim, job: Job) -> str:
    """Changes with the code, the settings and the device."""
    key = [
        source_hash(),
        job.data,
        job.budget,
        job.device,
        job.seed,
        settings_of(claim, job),
        dict(claim.arms[job.arm].options),
    ]
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]


def finished(claim: Claim, job: Job) -> CellResult | None:
    """The stored result of a cell, or `None` where there is none that this code wrote."""
    try:
        content = json.loads(job.file.read_text())
        content["curves"] = {name: [(x, y) for x, y in points] for name, points in content["curves"].items()}
        stored = CellResult(**content)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return stored if stored.fingerprint == fingerprint(claim, job) else None


def run_cell(job: Job, progress: Progress) -> CellResult:
    """Compute a cell and write its result.

    The result appears under its name in one step, when all of it is written; a kill before leaves nothing behind that
    could be taken for a result.

    Args:
        job: Which cell.
        progress: Called with the cell's name and the share done.

    Returns:
        The result.
    """
    claim = load_claim(job.claim)
    start = time.perf_counter()
    with one_thread():
        seed_everything(job.seed)
        cell = Cell(
            arm=job.arm,
            options=claim.arms[job.arm].options,
            seed=job.seed,
            data=job.data,
            settings=settings_of(claim, job),
            device=torch.device(job.device),
            data_root=job.data_root,
            once=Shared(claim, job),
            progress=lambda share: progress(job.name, share),
        )
        outcome = claim.run(cell)
    missing = set(claim.for_data(job.data).metrics) - set(outcome.metrics)
    if missing:
        raise ValueError(f"{claim.slug}: arm {job.arm!r} gave no figure for {', '.join(sorted(missing))}")
    pictures: dict[str, str] = {}
    for number, (caption, pixels) in enumerate(outcome.pictures.items()):
        path = job.folder / "pictures" / f"{job.name}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(path, optimize=True)
        pictures[caption] = str(path.relative_to(job.folder))
    result = CellResult(
        arm=job.arm,
        seed=job.seed,
        metrics={key: float(value) for key, value in outcome.metrics.items()},
        curves={key: [(float(x), float(y)) for x, y in points] for key, points in outcome.curves.items()},
        pictures=pictures,
        seconds=time.perf_counter() - start,
        fingerprint=fingerprint(claim, job),
    )
    write_atomically(job.file, json.dumps(asdict(result)))
    return result


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """A cell computes on one thread, so that its figures do not depend on how many run at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


class Shared:
    """`cell.once`: the first arm of a seed computes, the others of that seed read; the lock lets nobody compute twice.

    What is computed depends on the seed and the name alone, not on the arm that came first, and leaves the global
    generators as it found them.
    """

    def __init__(self, claim: Claim, job: Job) -> None:
        key = [source_hash(), job.data, job.budget, job.device, settings_of(claim, job)]
        self.folder = job.folder / "shared" / hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:16]
        self.seed = job.seed

    def __call__(self, name: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `build()` gives, from the disk where it is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}-seed{self.seed}.safetensors"
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
                seed_everything(zlib.crc32(f"{name}-{self.seed}".encode()))
                state = build()
                partial = path.with_suffix(f".{os.getpid()}.partial")
                save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, partial)
                partial.replace(path)
                random.setstate(kept[0])
                np.random.set_state(kept[1])
                torch.set_rng_state(kept[2])
        return load_file(path)
