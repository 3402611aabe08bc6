"""One copy of a workload in a process of its own: told what to do on standard input, giving its record on the output.

Run as `python -m saccade.efficiency.migperf.copies`; `sharing` starts them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO


def main(given: TextIO = sys.stdin, out: TextIO = sys.stdout) -> int:
    """Read settings, build, say `ready`, wait for `go`, measure, write the record.

    Args:
        given: A line of JSON with `cores`, `torch_threads` and the settings of `benchmark`; later a line `go`.
        out: Gets the line `ready`, and the record as a line of JSON.

    Returns:
        0; 1 where it could not be measured.
    """
    settings: dict[str, Any] = json.loads(given.readline())
    cores, torch_threads = settings.pop("cores"), settings.pop("torch_threads")
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    import torch

    from saccade.efficiency.migperf.runs import benchmark

    if torch_threads:
        torch.set_num_threads(torch_threads)

    def wait_for_others() -> None:
        out.write("ready\n")
        out.flush()
        given.readline()

    if isinstance(settings.get("input_spec"), list):
        settings["input_spec"] = tuple(settings["input_spec"])
    try:
        record = benchmark(**settings, before_window=wait_for_others)[0]
    except (ValueError, TypeError, RuntimeError, ImportError, OSError) as error:
        out.write(json.dumps({"error": " ".join(str(error).split())}) + "\n")
        return 1
    out.write(json.dumps(record.as_dict()) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
