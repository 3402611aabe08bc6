"""Draws time and memory over the length of a clip, from benchmarks/results.json, into docs/assets/SLUG-scaling.png.

A benchmark takes part where the names of some of its comparisons end in "(a clip of N frames)".
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]

CLIP = re.compile(r"\(a clip of (\d+) frames\)$")


def draw(rows: list[dict[str, Any]], hardware: str) -> Figure:
    """Two panels: milliseconds and MiB, ours and the peer's, both axes logarithmic."""
    lengths = [int(CLIP.search(row["name"])[1]) for row in rows]
    figure = Figure(figsize=(8.6, 3.4), dpi=130, facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2)
    passes = "inference" if "inference" in rows[0]["name"] else "forward + backward"
    panels = (("_s", 1e3, f"{passes} (ms)"), ("_bytes", 2**-20, "peak memory (MiB)"))
    for axis, (suffix, unit, label) in zip(axes, panels, strict=True):
        for side, name, colour in (("peer", rows[0]["peer_name"], "#8a9099"), ("ours", "Saccade", "#4c78a8")):
            values = [row[side + suffix] for row in rows]
            if None not in values:
                axis.plot(
                    lengths, [unit * v for v in values], "o-", color=colour, label=name, linewidth=2, markersize=5
                )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(lengths, [str(n) for n in lengths])
        axis.set_xlabel("frames in the clip")
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        for edge in ("top", "right"):
            axis.spines[edge].set_visible(False)
    axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"{CLIP.sub('', rows[0]['name']).split(',')[0]}; {hardware}", fontsize=10)
    return figure


def main() -> None:
    """Draw them all; where a benchmark was recorded on several machines, the last."""
    for slug, machines in json.loads((ROOT / "benchmarks" / "results.json").read_text()).items():
        hardware, about = list(machines.items())[-1]
        rows = [row for row in about["rows"] if CLIP.search(row["name"])]
        if len(rows) > 1:
            path = ROOT / "docs" / "assets" / f"{slug}-scaling.png"
            draw(rows, hardware).savefig(path)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
