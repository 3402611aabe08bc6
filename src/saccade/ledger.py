"""The ledger: the last measured result of every claim, from which all published tables are made. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PACKAGED = Path(__file__).parent / "claims" / "ledger.json"
CHECKOUT = Path(__file__).parents[2] / "claims" / "ledger.json"


def ledger_path() -> Path:
    """The checkout's ledger where there is one, else the copy that the wheel holds."""
    return CHECKOUT if CHECKOUT.exists() else PACKAGED


def read_ledger() -> dict[str, dict[str, dict[str, Any]]]:
    """Slug -> data (or data/full) -> entry."""
    path = ledger_path()
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
