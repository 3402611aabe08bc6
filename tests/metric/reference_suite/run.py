"""Run the tests of a checkout of pytorch-metric-learning against ours.

    python tests/metric/reference_suite/run.py PATH_OF_CHECKOUT [arguments of pytest]

The checkout's `tests` are run, never its `src`: beside this file lies a package `pytorch_metric_learning` that hands
out our classes under the names of the reference library's modules. Its tests begin with `sys.path.insert(0, "src")`, so
they are run from a folder that has no `src`. They look for `TEST_DEVICE` and `TEST_DTYPES`; here that is the CPU in
float32 and float64 unless said otherwise. `tests/trainers/test_metric_loss_only.py` is left out: it fetches data.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "src"
LEFT_OUT = ("trainers/test_metric_loss_only.py",)


def main(arguments: list[str]) -> int:
    """Run pytest in a process of its own, and give its exit status."""
    if not arguments:
        print(__doc__)
        return 2
    tests = Path(arguments[0]).resolve() / "tests"
    if not tests.is_dir():
        print(f"error: {tests} is no folder; the path of a checkout of pytorch-metric-learning is wanted")
        return 2
    environment = {"TEST_DEVICE": "cpu", "TEST_DTYPES": "float32,float64"} | dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tests").symlink_to(tests, target_is_directory=True)
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (HERE, SOURCE, folder)))
        ignored = [f"--ignore=tests/{name}" for name in LEFT_OUT]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "tests"]
        return subprocess.call([*command, *ignored, *arguments[1:]], cwd=folder, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
