"""The methods of the domain `crowd`."""

from __future__ import annotations

from saccade.catalog.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="dmba",
        name="DMBA",
        title="Backdoor Attacks on Crowd Counting",
        arxiv="2207.05641",
        domain="crowd",
        summary=(
            "Audits one's own crowd counter: how would it react had its training data been tampered with, and "
            "which repair helps?"
        ),
        repository="Nathangitlab/Backdoor-Attacks-on-Crowd-Counting",
        licence="MIT",
    ),
)
