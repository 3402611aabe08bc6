"""A progress bar on a terminal, and silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def with_progress(steps: Iterable[T], total: int | None, what: Callable[[], str]) -> Iterator[T]:
    """Go through `steps` behind a bar with an estimate.

    Args:
        steps: What to go through.
        total: How many there are.
        what: Gives the words before the bar, asked for after each step.

    Yields:
        The steps.
    """
    if not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what(), total=total)
        for step in steps:
            yield step
            bar.update(task, advance=1, description=what())
