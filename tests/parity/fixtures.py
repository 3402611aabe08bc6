"""Golden fixtures: reading them, and filling weights that they name by a rule."""

from __future__ import annotations

import importlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

DEFAULT = Path(__file__).parents[3] / "shared" / "golden"


@dataclass(frozen=True)
class Fixture:
    """One case: `config` and tensors under `weight/`, `in/`, `out/`, `grad/`."""

    path: Path

    @cached_property
    def json(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.path.with_suffix(".safetensors"))

    @property
    def slug(self) -> str:
        return self.path.parent.name

    @property
    def id(self) -> str:
        return f"{self.slug}/{self.path.stem}"

    @property
    def kind(self) -> str:
        return self.json.get("kind", self.path.stem)

    @property
    def config(self) -> dict[str, Any]:
        return self.json["config"]

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(prefix + "/")}

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.part("weight")

    @property
    def inputs(self) -> dict[str, Tensor]:
        return self.part("in")

    @property
    def expected(self) -> dict[str, Tensor]:
        """`out/*` and `grad/*`: what a replay has to return, under the same names."""
        return {key: value for key, value in self.tensors.items() if key.startswith(("out/", "grad/"))}


def folders() -> list[Path]:
    named = os.environ.get("SACCADE_GOLDEN")
    return [Path(folder) for folder in named.split(os.pathsep)] if named else [DEFAULT]


def replay_of(slug: str) -> ModuleType | None:
    """The module `replays/SLUG.py`, or `None` where there is none."""
    name = slug.replace("-", "_")
    if not (Path(__file__).parent / "replays" / f"{name}.py").exists():
        return None
    return importlib.import_module(f"tests.parity.replays.{name}")


def fill(rule: str, shapes: Mapping[str, tuple[int, ...]], *, gain: float = 2.0, seed: int = 0) -> dict[str, Tensor]:
    """Weights that are not stored but filled by a rule of the fixtures' README: `crc32`, `sorted` or `sine`."""
    filled: dict[str, Tensor] = {}
    random = np.random.RandomState(seed)
    for position, key in enumerate(sorted(shapes)):
        shape = tuple(shapes[key])
        count, fan_in = int(np.prod(shape)), int(np.prod(shape[1:]))
        counter = key.endswith("num_batches_tracked")
        if rule == "crc32":
            a = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(count)
            if counter:
                value = np.zeros(count)
            elif len(shape) >= 2:
                value = a * np.sqrt(gain / fan_in)
            elif key.endswith("running_var"):
                value = 1 + 0.2 * np.abs(a)
            else:
                value = 0.1 * a + (1.0 if key.endswith(".weight") else 0.0)
        elif rule == "sorted":
            if counter:
                filled[key] = torch.zeros(shape, dtype=torch.int64)
                continue
            x = random.standard_normal(count)
            if key.endswith("running_mean"):
                value = 0.1 * x
            elif key.endswith("running_var"):
                value = 1 + 0.2 * np.abs(x)
            elif key.endswith("bias"):
                value = 0.05 * x
            elif len(shape) == 1:
                value = 1 + 0.1 * x
            else:
                value = x * np.sqrt(2 / (count / shape[0]))
        elif rule == "sine":
            i = np.arange(count)
            s = np.sin(0.7 * i + 1.3 * position + 0.1 * (i * i % 17))
            if counter:
                value = np.full(count, 5)
            elif len(shape) >= 2:
                value = np.sqrt(2 / fan_in) * s
            elif key.endswith("running_var"):
                value = 1 + 0.5 * s**2
            elif key.endswith(("bias", "running_mean")):
                value = 0.3 * s
            else:
                value = 1 + 0.3 * s
        else:
            raise ValueError(f"unknown rule {rule!r}: crc32, sorted or sine")
        dtype = torch.int64 if counter else torch.float64 if rule == "sine" else torch.float32
        filled[key] = torch.from_numpy(np.asarray(value).reshape(shape)).to(dtype)
    return filled
