"""Readers of tabular architecture benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from saccade.efficiency.cells import (
    CONV1,
    CONV3,
    EDGE_OPERATIONS,
    INPUT,
    OPERATIONS,
    OUTPUT,
    POOL,
    Cell,
    edge_codes,
    one_hot,
)
from saccade.efficiency.search_space import TabularBenchmark

EC_OPERATIONS = {-1: INPUT, 0: CONV3, 1: CONV1, 2: POOL, -2: OUTPUT}
EC_RUN = ("set", "epochs", "train", "valid", "test", "energy", "seconds")


def load_nasbench_macro(path: str | Path) -> TabularBenchmark:
    """NAS-Bench-Macro: 6,561 networks of eight layers with three operations each (arXiv:2103.11922).

    Args:
        path: `nas-bench-macro_cifar10.json`.

    Returns:
        A table in the order of sorted names, with `test` (three runs, %), `params` and `flops`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another format.
    """
    content = _read(path)
    keys = sorted(content)
    try:
        codes = np.array([[int(digit) for digit in key] for key in keys])
        metrics = {
            "test": np.array([content[key]["test_acc"] for key in keys]),
            "params": np.array([content[key]["params"] for key in keys]),
            "flops": np.array([content[key]["flops"] for key in keys]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not NAS-Bench-Macro: {error!r}") from None
    rows = dict.fromkeys(keys)

    def neighbours(key: str) -> list[str]:
        found = (key[:i] + op + key[i + 1 :] for i in range(len(key)) for op in "012" if op != key[i])
        return [other for other in found if other in rows]

    return TabularBenchmark(one_hot(codes, (3,) * codes.shape[1]), metrics, keys, neighbours)


def load_ec_nasbench(path: str | Path, encoding: Literal["sequence", "matrix"] = "sequence") -> TabularBenchmark:
    """Cells of the NAS-Bench-101 space with accuracies and measured energy (EC-NAS-Bench).

    Args:
        path: JSON: by hash `adjacency`, `ops` (-1 input, 0 conv 3x3, 1 conv 1x1, 2 max pool, -2 output, or their
            names), `params`, and `runs` of [set, epochs, train, validation, test accuracy, energy in kWh, seconds].
        encoding: `sequence` (45 numbers) or `matrix` (49).

    Returns:
        A table in the order of sorted hashes, with `train`, `valid` and `test` (%), `energy` (kWh), `seconds`, of
        each run, and `params`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another format, or another encoding.
    """
    if encoding not in ("sequence", "matrix"):
        raise ValueError(f"encoding is 'sequence' or 'matrix', not {encoding!r}")
    content = _read(path)
    keys = sorted(content)
    try:
        cells = [_cell(content[key]) for key in keys]
        most = max(len(content[key]["runs"]) for key in keys)
        runs = np.full((len(keys), most, len(EC_RUN)), np.nan)
        for row, key in enumerate(keys):
            for number, run in enumerate(content[key]["runs"]):
                runs[row, number, 1:] = run[1:]
        params = np.array([content[key]["params"] for key in keys])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is not a table of cells: {error!r}") from None
    metrics = {name: runs[:, :, column] for column, name in enumerate(EC_RUN) if name not in ("set", "epochs")}
    for name in ("train", "valid", "test"):
        metrics[name] = 100 * metrics[name]
    names = {cell.canonical(): key for key, cell in zip(keys, cells, strict=True)}
    by_key = dict(zip(keys, cells, strict=True))
    largest = max(len(cell.ops) for cell in cells)

    def neighbours(key: str) -> list[str]:
        return [names[cell] for cell in by_key[key].neighbours(largest) if cell in names]

    features = np.stack([getattr(cell, encoding)() for cell in cells])
    return TabularBenchmark(features, {**metrics, "params": params}, keys, neighbours)


def load_nasbench201_json(path: str | Path) -> TabularBenchmark:
    """NAS-Bench-201, or a part of it, written out as JSON (arXiv:2001.00326).

    Args:
        path: JSON: by the text of a cell (`|nor_conv_3x3~0|+|...|`) its metrics, each a number or a list of runs.

    Returns:
        A table in the order of sorted texts.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another format.
    """
    content = _read(path)
    keys = sorted(content)
    try:
        codes = np.array([edge_codes(key) for key in keys])
        metrics = {name: np.array([content[key][name] for key in keys], dtype=np.float64) for name in content[keys[0]]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a table of NAS-Bench-201 cells: {error}") from None
    names = {code: key for key, code in zip(keys, map(tuple, codes.tolist()), strict=True)}

    def neighbours(key: str) -> list[str]:
        code, count = edge_codes(key), len(EDGE_OPERATIONS)
        others = ((*code[:i], op, *code[i + 1 :]) for i in range(6) for op in range(count) if op != code[i])
        return [names[other] for other in others if other in names]

    return TabularBenchmark(one_hot(codes, (len(EDGE_OPERATIONS),) * 6), metrics, keys, neighbours)


def load_table(path: str | Path) -> TabularBenchmark:
    """Any of the tables above, told apart by its names.

    Args:
        path: The JSON.

    Returns:
        The table.

    Raises:
        FileNotFoundError: No such file.
        ValueError: None of these formats.
    """
    first = next(iter(_read(path)))
    if first.startswith("|"):
        return load_nasbench201_json(path)
    if first.isdigit() and set(first) <= set("012"):
        return load_nasbench_macro(path)
    return load_ec_nasbench(path)


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no table {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no architectures: an object with an entry for each is accepted")
    return content


def _cell(entry: dict[str, Any]) -> Cell:
    ops = tuple(OPERATIONS[op] if isinstance(op, str) else EC_OPERATIONS[op] for op in entry["ops"])
    return Cell(tuple(tuple(row) for row in entry["adjacency"]), ops)
