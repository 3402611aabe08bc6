"""The generated pages are fresh, and staleness is noticed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from saccade.catalog import METHODS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages are not in this installation")


@pytest.fixture
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_fresh(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().out


def test_a_changed_figure_makes_them_stale(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_text() for path in generate.render()}
    ledger = generate._json(ROOT / "claims" / "ledger.json")
    entry = next(iter(ledger["correct-and-smooth"].values()))
    entry["expectations"][0]["mean"] = 12.345
    monkeypatch.setattr(generate, "_json", lambda path: ledger if path.name == "ledger.json" else {})
    assert generate.main(["--check"]) == 1
    printed = capsys.readouterr().out
    assert "stale: README.md" in printed
    assert "stale: docs/methods/correct-and-smooth.md" in printed
    assert {path: path.read_text() for path in before} == before, "a check writes nothing"


def test_every_built_method_has_a_page_and_every_planned_one_is_listed(generate: ModuleType) -> None:
    pages = {path.relative_to(ROOT).as_posix(): text for path, text in generate.render().items()}
    for method in METHODS:
        assert (f"docs/methods/{method.slug}.md" in pages) == (method.status == "built")
        assert method.summary in pages["docs/methods/index.md"]


def test_markers_that_nobody_fills_are_noticed(generate: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"x\.md has markers that nobody fills: nothing"):
        generate.fill("<!-- begin nothing -->\n<!-- end nothing -->\n", {"count": "1"}, "x.md")


def test_docstrings_and_claims_are_read_without_importing(generate: ModuleType) -> None:
    assert generate.docstring("saccade.graph:CorrectAndSmooth")[0].startswith("Correct and Smooth:")
    assert set(generate.claim_texts("saccade.graph.claims:CORRECT_AND_SMOOTH")) == {"statement", "paper", "limits"}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/errata.md", "docs/add-a-method.md"])
def test_what_pages_name_is_there(page: str) -> None:
    import re

    text = (ROOT / page).read_text()
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
    for path in re.findall(r"`((?:src|docs|tests|benchmarks|claims)/[\w/.-]+\.(?:py|md|json))`", text):
        if "METHOD" not in path and "SLUG" not in path and "DOMAIN" not in path and "VERB" not in path:
            assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target
