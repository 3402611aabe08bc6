"""The commands and how errors leave: one line, exit code 2; an interrupt leaves everything resumable."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click
import typer

from saccade import __version__
from saccade.cli.bench import bench
from saccade.cli.convert import convert
from saccade.cli.lightning import SUBCOMMANDS, lightning
from saccade.cli.methods import list_methods, show
from saccade.cli.reproduce import reproduce

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app = typer.Typer(
    help="Published vision methods as parts, recipes and claims.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(list_methods)
app.command()(show)
app.command()(reproduce)
app.command()(bench)
app.command()(convert)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _pass_on(name: str, about: str) -> None:
    """Lightning parses its own options."""

    def command(context: typer.Context) -> None:
        lightning(name, list(context.args))

    command.__doc__ = about
    app.command(name, context_settings=PASS_ON)(command)


for _name, _about in SUBCOMMANDS.items():
    _pass_on(_name, _about)


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: As a person types them; `sys.argv` where `None`.

    Returns:
        0; 1 where a claim fails; 2 on bad input; 130 on an interrupt.
    """
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        code = command(args=arguments, prog_name="saccade", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    except click.ClickException as error:
        return _fail(error.format_message())
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("SACCADE_DEBUG"):
            raise
        return _fail(str(error) or type(error).__name__)


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
