import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from saccade.catalog import DOMAINS, METHODS, Method, find

CARDS = Path(__file__).parents[2] / "shared" / "methods"


def paths() -> list[str]:
    return [
        path for method in METHODS for path in (*method.parts, *filter(None, (method.claim, method.converter))) if path
    ]


def test_there_are_forty_seven_methods_and_each_is_there_once() -> None:
    assert len(METHODS) == 47
    assert len({method.slug for method in METHODS}) == 47
    assert len({method.arxiv for method in METHODS}) == 47
    assert [method.slug for method in METHODS] == sorted(method.slug for method in METHODS)


@pytest.mark.skipif(not CARDS.is_dir(), reason="the cards are not beside this checkout")
def test_every_card_has_its_entry() -> None:
    assert {method.slug for method in METHODS} == {card.stem for card in CARDS.glob("[a-z]*.md")}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.slug)
def test_fields_are_well_formed(method: Method) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", method.slug)
    assert re.fullmatch(r"\d{4}\.\d{4,5}", method.arxiv)
    assert method.domain in DOMAINS
    assert method.name
    assert len(method.title) > 10
    assert method.summary[-1] in ".?"
    assert 40 < len(method.summary) < 220
    assert method.repository == "" or re.fullmatch(r"[\w.-]+/[\w.-]+", method.repository)
    assert bool(method.repository) == bool(method.licence)
    assert method.status == ("built" if method.parts else "planned")
    assert all(recipe.startswith(f"{method.domain}/") for recipe in method.recipes)
    if method.status == "planned":
        assert (method.claim, method.recipes, method.converter) == ("", (), "")
    else:
        assert method.claim


@pytest.mark.parametrize("path", paths())
def test_every_dotted_path_leads_somewhere(path: str) -> None:
    module, _, name = path.partition(":")
    assert getattr(importlib.import_module(module), name) is not None


def test_every_recipe_is_there() -> None:
    source = Path(__file__).parents[1] / "src" / "saccade"
    for method in METHODS:
        for recipe in method.recipes:
            domain, name = recipe.split("/")
            assert (source / domain / "recipes" / f"{name}.yaml").is_file(), recipe


def test_the_catalog_answers_at_once_because_it_imports_no_torch() -> None:
    code = "import sys, saccade.catalog; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_find_gives_the_entry_or_names_the_nearest() -> None:
    assert find("gta").name == "GTA"
    with pytest.raises(ValueError, match=r"no method 'proxy-anker'; near it: proxy-anchor"):
        find("proxy-anker")
    with pytest.raises(ValueError, match=r"saccade list"):
        find("zzzzzz")
