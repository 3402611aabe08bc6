"""Searches on a person's own table or space: what `saccade nas-search` does."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import yaml

from saccade.efficiency.acquisition import Acquisition
from saccade.efficiency.nas_tables import load_table
from saccade.efficiency.search import (
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    Search,
    SearchResult,
    StrongPredictorSearch,
    sample_efficiency,
    write_result,
)
from saccade.efficiency.search_space import ChoiceSpace, Oracle, SearchSpace, TabularBenchmark
from saccade.efficiency.weaknas import WeakPredictorSearch

SEARCHES: dict[str, tuple[type[Search], tuple[str, ...]]] = {
    "weaknas": (
        WeakPredictorSearch,
        ("predictor", "init", "per_round", "pool", "draw", "acquisition", "ensemble", "options", "decay", "free_top1"),
    ),
    "strong": (StrongPredictorSearch, ("predictor", "top_k", "options")),
    "evolution": (RegularizedEvolution, ("population", "tournament")),
    "local": (LocalSearch, ()),
    "random": (RandomSearch, ()),
}
"""Searches by name, and which settings each takes."""


@dataclass(frozen=True)
class CommandOracle:
    """Evaluates a choice by running a command, which prints its value as the last line.

    Args:
        command: Run without a shell; `{name}` stands for the choice of that decision, `{json}` for all of them.
        timeout: Seconds after which an evaluation fails; `None`: never.

    Raises:
        RuntimeError: At the call: the command fails, takes too long, or prints no number.

    Example:
        >>> CommandOracle("echo {width}")({"width": 32})
        32.0
    """

    command: str
    timeout: float | None = None

    def __call__(self, choice: Any) -> float:
        """The value of a choice."""
        named = choice if isinstance(choice, dict) else {"key": choice}
        words = shlex.split(self.command)
        for name, value in [*named.items(), ("json", json.dumps(named))]:
            words = [word.replace("{" + name + "}", str(value)) for word in words]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=self.timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"the oracle for {named} did not run: {error}") from None
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"the oracle for {named} ended with {done.returncode}: {last}")
        try:
            return float(lines[-1])
        except (IndexError, ValueError):
            raise RuntimeError(f"the oracle for {named} printed no number as its last line") from None


@dataclass(frozen=True)
class Searched:
    """What `saccade nas-search` gives.

    Args:
        space: That was searched.
        results: One for each seed.
        summary: Figures, as JSON.
    """

    space: SearchSpace
    results: list[SearchResult] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def nas_search(
    source: str | Path,
    out: str | Path,
    method: str = "weaknas",
    metric: str = "",
    noise: bool = False,
    budget: int = 100,
    repeat: int = 1,
    seed: int = 0,
    workers: int = 1,
    on_evaluated: Callable[[int, int, int], None] | None = None,
    **settings: Any,
) -> Searched:
    """Search a table, or a space of one's own; an interrupted search goes on where it stood.

    Args:
        source: A table as JSON (NAS-Bench-Macro, EC-NAS-Bench, NAS-Bench-201 written out), or a YAML file with
            `choices` (decision: what it can be), `command` (see `CommandOracle`), and if wanted `pool` and `timeout`.
        out: Folder for the states, the results and the picture.
        method: `weaknas`, `strong`, `evolution`, `local` or `random`.
        metric: Of a table; `valid` where it has it, else `test`.
        noise: Whether each architecture of a table shows one of its runs, drawn once for each seed.
        budget: Evaluations.
        repeat: Searches, with seeds from `seed` on.
        seed: The first.
        workers: Evaluations at a time.
        on_evaluated: Called with seed, evaluations and budget.
        **settings: Of the search.

    Returns:
        Results and figures.

    Raises:
        ValueError: Unknown method, metric or setting, or a source of another format.
        FileNotFoundError: No such source.
        RuntimeError: The command of a space failed; what was evaluated is kept.
    """
    source, out = Path(source), Path(out)
    if method not in SEARCHES:
        raise ValueError(f"a method is one of {', '.join(SEARCHES)}, not {method!r}")
    if repeat < 1:
        raise ValueError(f"repeat has to be at least 1, not {repeat}")
    kind, accepted = SEARCHES[method]
    unknown = sorted(set(settings) - set(accepted))
    if unknown:
        raise ValueError(f"{method} has no setting {', '.join(unknown)}; it has {', '.join(accepted) or 'none'}")
    own = source.suffix in (".yaml", ".yml")
    space: SearchSpace
    if own:
        space, command = load_space(source)
    else:
        space = load_table(source)
        metric = metric or ("valid" if "valid" in space.metrics else "test")
        space.values(metric)
    results = []
    out.mkdir(parents=True, exist_ok=True)
    for own_seed in range(seed, seed + repeat):
        oracle: Oracle = command if own else _table_oracle(space, metric, own_seed if noise else None)
        search = kind(
            space,
            oracle,
            budget=budget,
            seed=own_seed,
            workers=workers,
            state=out / f"state-{method}-{own_seed}.json" if own else None,
            on_evaluated=None if on_evaluated is None else _telling(on_evaluated, own_seed),
            **settings,
        )
        results.append(search.run())
        write_result(out / f"result-{method}-{own_seed}.json", space, results[-1])
    summary = _summary(space, results, metric, method)
    (out / f"summary-{method}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    draw_history(out / f"history-{method}.png", results, summary)
    return Searched(space, results, summary)


def load_space(path: Path) -> tuple[ChoiceSpace, CommandOracle]:
    """A space of one's own and its oracle, from YAML.

    Args:
        path: The file.

    Returns:
        Both.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no YAML, or `choices` or `command` are not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no search space {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    known = {"choices", "command", "pool", "timeout"}
    if not isinstance(content, dict) or not {"choices", "command"} <= set(content) <= known:
        raise ValueError(f"{path} has to hold `choices` and `command`, and may hold `pool` and `timeout`")
    choices = content["choices"]
    if not isinstance(choices, dict) or not all(isinstance(values, list) for values in choices.values()):
        raise ValueError(f"{path}: `choices` has to name each decision and list what it can be")
    space = ChoiceSpace(choices, **({"pool": content["pool"]} if "pool" in content else {}))
    return space, CommandOracle(content["command"], content.get("timeout"))


def draw_history(path: Path, results: list[SearchResult], summary: dict[str, Any]) -> None:
    """The best value so far by the number of evaluations, a line for each seed.

    Args:
        path: A PNG.
        results: Of the searches.
        summary: Their figures; an optimum is drawn where it is known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for result in results:
        axes.step(*zip(*result.history, strict=True), where="post", color="#2f7de1", linewidth=1, alpha=0.6)
    if "optimum" in summary:
        axes.axhline(summary["optimum"], color="#d62728", linewidth=1)
    middle = float(np.median([result.history[min(9, len(result.history) - 1)][1] for result in results]))
    top = summary.get("optimum", summary["best"])
    if top > middle:
        axes.set_ylim(middle - 0.2 * (top - middle), top + 0.1 * (top - middle))
    axes.set(xlabel="evaluations", ylabel="best so far")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _summary(space: SearchSpace, results: list[SearchResult], metric: str, method: str) -> dict[str, Any]:
    best = np.array([result.best_value for result in results])
    winner = results[int(best.argmax())]
    summary: dict[str, Any] = {
        "method": method,
        "architectures": len(space),
        "evaluations": max(len(result.evaluated) for result in results),
        "seeds": len(results),
        "best": float(best.max()),
        "mean": float(best.mean()),
        "std": float(best.std()),
        "best_choice": space.describe(winner.best_key),
    }
    if isinstance(space, TabularBenchmark):
        key, optimum = space.best(metric)
        reached = [sample_efficiency(result, optimum) for result in results]
        counts = [count for count in reached if count is not None]
        summary |= {
            "metric": metric,
            "optimum": optimum,
            "optimum_choice": key,
            "regret": float(optimum - best.mean()),
            "reached_optimum": len(counts),
            "evaluations_to_optimum": float(np.mean(counts)) if counts else None,
        }
    return summary


def _table_oracle(space: SearchSpace, metric: str, seed: int | None) -> Oracle:
    if not isinstance(space, TabularBenchmark):
        raise TypeError(f"a table is needed, not {type(space).__name__}")
    return space.oracle(metric, seed)


def _telling(told: Callable[[int, int, int], None], seed: int) -> Callable[[int, int], None]:
    return lambda done, budget: told(seed, done, budget)


def acquisition_of(name: str | None) -> Acquisition | None:
    """An acquisition rule by name; `None` or `none` for the draw from the pool.

    Raises:
        ValueError: Another name.
    """
    if name in (None, "none"):
        return None
    if name not in get_args(Acquisition):
        raise ValueError(f"an acquisition is one of none, {', '.join(get_args(Acquisition))}, not {name!r}")
    return name  # type: ignore[return-value]
