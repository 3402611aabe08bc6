"""The list of methods: data alone, so that `saccade list` answers at once. Importing it imports no torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


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


METHODS: tuple[Method, ...] = ()


def find(slug: str) -> Method:
    """The method of that slug.

    Args:
        slug: As in `saccade list`.

    Returns:
        Its entry.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    for method in METHODS:
        if method.slug == slug:
            return method
    near = difflib.get_close_matches(slug, [method.slug for method in METHODS], n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`saccade list` prints them all"
    raise ValueError(f"no method {slug!r}: {hint}")
