"""Recipes: YAML files in `DOMAIN/recipes`, found by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from saccade.spelling import near_it

PACKAGE = Path(str(files("saccade")))


def recipes() -> dict[str, Path]:
    """Every packaged recipe, `domain/name` to file."""
    return {f"{path.parent.parent.name}/{path.stem}": path for path in sorted(PACKAGE.glob("*/recipes/*.yaml"))}


def find_recipe(name: str) -> tuple[str, Path]:
    """A recipe by name or by path.

    Args:
        name: `domain/recipe`, or the path of a YAML file.

    Returns:
        A name for its runs, and the file.

    Raises:
        FileNotFoundError: There is neither; the message names the nearest recipes.
    """
    known = recipes()
    if name in known:
        return name, known[name]
    path = Path(name)
    if path.is_file():
        return path.stem, path
    hint = near_it(name, known, f"there is {', '.join(known) or 'none yet'}")
    raise FileNotFoundError(f"no recipe {name!r}, and no file of that name; {hint}")
