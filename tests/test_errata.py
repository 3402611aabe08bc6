"""Every departure that `docs/errata.md` lists has a test, and the test is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errata.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)", re.sub(r"\s+", " ", PAGE))))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda text: text)
def test_it_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / file).read_text()


def test_every_departure_names_one() -> None:
    for section in re.split(r"^## ", PAGE, flags=re.M)[1:]:
        departures = re.split(r"^\*\*", section, flags=re.M)[1:]
        without = [text.split("**")[0] for text in departures if "tests/" not in text]
        assert not without, f"{section.splitlines()[0]}: {without}"
