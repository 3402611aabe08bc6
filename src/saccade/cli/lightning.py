"""`saccade fit | validate | test | predict --config RECIPE`: Lightning's command line with recipes found by name."""

from __future__ import annotations

SUBCOMMANDS = {
    "fit": "Train a recipe: --config DOMAIN/NAME or a file, then any option of its task, data or trainer.",
    "validate": "Validate a recipe's checkpoint.",
    "test": "Test a recipe's checkpoint.",
}


def lightning(subcommand: str, arguments: list[str]) -> None:
    """Run one of Lightning's subcommands.

    Args:
        subcommand: `fit`, `validate`, `test` or `predict`.
        arguments: What stands behind it on the command line.
    """
    from saccade.training.cli import run

    run(subcommand, arguments)
