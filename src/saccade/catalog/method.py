"""What the catalog says of a method."""

from __future__ import annotations

from dataclasses import dataclass

NO_LICENCE = "none named: no licence file"


@dataclass(frozen=True)
class Method:
    """One published method and where its three faces are.

    Args:
        slug: Its name everywhere: on the command line, in files, in the ledger.
        name: What people call it.
        title: The paper's title.
        arxiv: The paper's arXiv number.
        domain: The folder it lives in.
        summary: One sentence: what it is for.
        repository: The authors' code, `owner/name`; empty where none is published.
        licence: Licence of the authors' code, as far as it is known.
        parts: Dotted paths of what one imports, `package.module:Name`; empty: the method is planned, not built.
        claim: Dotted path of the claim.
        recipes: Names of recipes, `domain/recipe`.
        converter: Dotted path of the function that turns the authors' state dict into ours.
        checkpoints: What the authors published, in one sentence.
    """

    slug: str
    name: str
    title: str
    arxiv: str
    domain: str
    summary: str
    repository: str = ""
    licence: str = ""
    parts: tuple[str, ...] = ()
    claim: str = ""
    recipes: tuple[str, ...] = ()
    converter: str = ""
    checkpoints: str = ""

    @property
    def status(self) -> str:
        """`built` or `planned`."""
        return "built" if self.parts else "planned"

    @property
    def recipe_commands(self) -> tuple[str, ...]:
        """What one types to run each recipe: attribution is scored, searches, measurements run, the others trained."""
        kinds = {
            "explain/pointing": "saccade pointing {} --root ROOT --weights FILE",
            "efficiency/weaknas": "saccade nas-search SOURCE --recipe {}",
            "efficiency/migperf": "saccade bench jobs {}",
        }
        commands = (
            next((text for start, text in kinds.items() if recipe.startswith(start)), "saccade fit --config {}")
            for recipe in self.recipes
        )
        return tuple(command.format(recipe) for command, recipe in zip(commands, self.recipes, strict=True))
