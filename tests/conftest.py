"""Everything is tested with its shapes and types checked at run time."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

import tests.typechecker  # noqa: F401  (the hook finds it by its dotted path)

jaxtyping.install_import_hook("saccade", "tests.typechecker.typecheck")

import torch  # noqa: E402

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def _quiet_machine() -> None:
    torch.set_num_threads(int(os.environ.get("SACCADE_TEST_THREADS", "1")))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    """Every test compiles for itself: compiled versions of a function are counted, and there is a limit to them."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the run-time type checks: as a user meets bad input, who has no import hook."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data beside the checkout."""
    root = Path(os.environ.get("SACCADE_DATA", SHARED / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}")
    return root
