"""The commands and how errors leave: one line, exit code 2; an interrupt leaves everything resumable."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from saccade import __version__
from saccade.cli.adapt import adapt
from saccade.cli.bench_group import bench_group
from saccade.cli.compress import compress, decompress
from saccade.cli.convert import convert
from saccade.cli.explain import explain
from saccade.cli.export import export
from saccade.cli.fit_density import fit_density
from saccade.cli.lightning import SUBCOMMANDS, lightning
from saccade.cli.methods import list_methods, show
from saccade.cli.nas_search import nas_search
from saccade.cli.pointing import pointing
from saccade.cli.predict import predict
from saccade.cli.profile import profile
from saccade.cli.reproduce import reproduce
from saccade.cli.search import search
from saccade.cli.smooth import smooth

ClickException: Any = typer.BadParameter.__mro__[2]
"""The base of all usage errors: of click itself or of typer's own copy of it, whichever this typer has."""

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
app.command()(adapt)
app.command()(compress)
app.command()(convert)
app.command()(decompress)
app.command()(explain)
app.command()(export)
app.command("fit-density")(fit_density)
app.command("nas-search")(nas_search)
app.command()(pointing)
app.command()(predict)
app.command()(profile)
app.command()(smooth)
app.add_typer(bench_group, name="bench")
app.add_typer(search, name="search")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _announce(name: str, about: str) -> None:
    """For `saccade --help` alone: Lightning parses its own options, so `main` hands these commands on before typer."""

    def command() -> None:
        lightning(name, [])

    command.__doc__ = about
    app.command(name)(command)


for _name, _about in SUBCOMMANDS.items():
    _announce(_name, _about)


def _is_for_lightning(words: list[str]) -> bool:
    """`predict` is Lightning's with a recipe and the verb's with a checkpoint."""
    given = {word.partition("=")[0] for word in words}
    return words[0] in SUBCOMMANDS or (words[0] == "predict" and "--config" in given and "--checkpoint" not in given)


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: As a person types them; `sys.argv` where `None`.

    Returns:
        0; 1 where a claim fails; 2 on bad input; 130 on an interrupt.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words and _is_for_lightning(words):
            lightning(words[0], words[1:])
            return 0
        command: Callable[..., Any] = typer.main.get_command(app)
        code = command(args=words, prog_name="saccade", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except typer.Exit as leaving:
        return leaving.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    except ClickException as error:
        return _fail(error.format_message())
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("SACCADE_DEBUG"):
            raise
        return _fail(str(error) or type(error).__name__)


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
