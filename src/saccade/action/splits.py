"""A split of an action data set, and what readers of layouts share."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.data.clips import ClipRecord


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Args:
        records: Its clips.
        classes: Names of the classes, by id; empty where the layout does not tell.
        mirrored: Class to the class of the mirrored clip, for those where left and right matter.
    """

    records: list[ClipRecord]
    classes: list[str] = field(default_factory=list)
    mirrored: dict[int, int] = field(default_factory=dict)


def first_there(*paths: Path) -> Path:
    """Args: `paths`, any of which will do. Returns: the first that is there, else raises `FileNotFoundError`."""
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(f"neither {' nor '.join(map(str, paths))} is there")


def read_json(file: Path) -> Any:
    """Args: `file`, JSON text. Returns: what it holds; `ValueError` names the line where it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}: not JSON ({error.msg})") from None


def compare_size(name: str, split: str, found: int, sizes: dict[str, int]) -> None:
    """Warn where a list of the set `name` has not as many clips as the published one."""
    if found != sizes[split]:
        warnings.warn(f"{name} {split} has {sizes[split]} clips where published; this list has {found}", stacklevel=3)
