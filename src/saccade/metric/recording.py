"""Records of a training in one SQLite file: figures by step, kept in tables that can be asked in SQL.

The interface is that of the package record-keeper, which takes its place where it is installed.
"""

from __future__ import annotations

import csv
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

NAME = re.compile(r"\w+")


class RecordKeeper:
    """Collects figures; `save_records` writes them to `records.db` and one CSV file a table.

    Args:
        folder: Where the files go; it is made. An existing file is continued.
        tensorboard_writer: Gets each number, too: anything with `add_scalar(name, value, step)`.

    Example:
        >>> import tempfile
        >>> keeper = RecordKeeper(tempfile.mkdtemp())
        >>> for step in range(2):
        ...     keeper.update_records({"metric_loss": 1.0 / (step + 1)}, step, parent_name="loss_histories")
        >>> keeper.save_records()
        >>> keeper.query("SELECT metric_loss FROM loss_histories", return_dict=True)
        {'metric_loss': [1.0, 0.5]}
    """

    def __init__(self, folder: str | Path, tensorboard_writer: Any = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tensorboard_writer = tensorboard_writer
        self.hash_map: dict[str, str] = {}
        self._pending: dict[str, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        self._database = sqlite3.connect(self.folder / "records.db")
        self._database.row_factory = sqlite3.Row

    def update_records(
        self,
        record_these: Mapping[str, Any],
        global_iteration: int,
        custom_attr_func: Callable[[Any], Mapping[str, Any]] | None = None,
        parent_name: str | None = None,
        recursive_types: Sequence[type] = (),
    ) -> None:
        """Note figures of one step.

        Args:
            record_these: Name to figure, with `parent_name`; else name to object, whose attributes that its
                `_record_these` and `_record_these_stats` name are noted.
            global_iteration: The step.
            custom_attr_func: From an object to further figures.
            parent_name: The table of the figures.
            recursive_types: Attributes of these types are looked into, too.
        """
        if parent_name is not None:
            self._note(parent_name, global_iteration, record_these)
            return
        for name, value in record_these.items():
            self._look_into(name, value, global_iteration, custom_attr_func, tuple(recursive_types), set())

    def _look_into(
        self, name: str, value: Any, step: int, custom: Any, kinds: tuple[type, ...], seen: set[int]
    ) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        attributes = [*getattr(value, "_record_these", ()), *getattr(value, "_record_these_stats", ())]
        figures = {attribute: getattr(value, attribute) for attribute in attributes if hasattr(value, attribute)}
        figures |= custom(value) if custom else {}
        if figures:
            self._note(f"{name}_{type(value).__name__}", step, figures)
        if kinds:
            parts = dict(value) if isinstance(value, Mapping) else getattr(value, "_modules", {}) | vars(value)
            for part, held in parts.items():
                if isinstance(held, kinds) and not str(part).startswith("_"):
                    self._look_into(f"{name}_{part}", held, step, custom, kinds, seen)

    def _note(self, table: str, step: int, figures: Mapping[str, Any]) -> None:
        for name, value in figures.items():
            number = _as_number(value)
            if number is None:
                continue
            self._pending[_safe(table)][step][_safe(name)] = number
            if self.tensorboard_writer is not None:
                self.tensorboard_writer.add_scalar(f"{table}/{name}", number, step)

    def save_records(self) -> None:
        """Write what was noted since the last time."""
        with self._database:
            for table, rows in self._pending.items():
                self._database.execute(f'CREATE TABLE IF NOT EXISTS "{table}" (id INTEGER PRIMARY KEY)')
                known = {row["name"] for row in self._database.execute(f'PRAGMA table_info("{table}")')}
                for column in dict.fromkeys(name for row in rows.values() for name in row):
                    if column not in known:
                        self._database.execute(f'ALTER TABLE "{table}" ADD COLUMN "{column}"')
                for step, row in rows.items():
                    names = ", ".join(f'"{name}"' for name in row)
                    marks = ", ".join("?" * len(row))
                    updates = ", ".join(f'"{name}" = excluded."{name}"' for name in row)
                    self._database.execute(
                        f'INSERT INTO "{table}" (id, {names}) VALUES (?, {marks})'
                        f" ON CONFLICT (id) DO UPDATE SET {updates}",
                        (step, *row.values()),
                    )
        for table in self._pending:
            rows_of = self.query(f'SELECT * FROM "{table}"')
            with (self.folder / f"{table}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(rows_of[0].keys())
                writer.writerows(tuple(row) for row in rows_of)
        self._pending.clear()
        if self.tensorboard_writer is not None:
            self.tensorboard_writer.flush()

    def table_exists(self, table_name: str) -> bool:
        """Whether figures of a table have been saved."""
        found = self._database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table_name,))
        return found.fetchone() is not None

    def query(self, query: str, values: Sequence[Any] = (), return_dict: bool = False) -> Any:
        """Ask the tables in SQL.

        Args:
            query: One statement.
            values: For its question marks.
            return_dict: Columns to lists instead of rows.

        Returns:
            Rows, which can be indexed by column, or a dictionary.
        """
        rows = self._database.execute(query, tuple(values)).fetchall()
        if not return_dict:
            return rows
        return {name: [row[name] for row in rows] for name in rows[0].keys()} if rows else {}  # noqa: SIM118


def _safe(name: str) -> str:
    return "_".join(NAME.findall(name))


def _as_number(value: Any) -> float | int | str | None:
    """What a cell can hold; `None` for what it cannot."""
    if isinstance(value, bool | int | float | str):
        return value
    if getattr(value, "numel", lambda: 0)() == 1 or getattr(value, "size", 0) == 1:
        return value.item()
    return None
