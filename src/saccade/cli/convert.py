"""`saccade convert`: the authors' checkpoint in, ours out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from saccade.catalog import find


def convert(
    slug: Annotated[str, typer.Argument(help="Which method, as in `saccade list`.")],
    source: Annotated[Path, typer.Argument(help="The authors' file.")],
    target: Annotated[Path, typer.Argument(help="Where ours goes, a .safetensors file.")],
) -> None:
    """Turn the authors' checkpoint into a file that our part loads; unknown or missing keys are an error."""
    method = find(slug)
    if not method.converter:
        raise ValueError(f"{slug} has no converter: {method.checkpoints or 'its authors published no checkpoint'}")
    if target.suffix != ".safetensors":
        raise ValueError(f"the target is written as safetensors and should end in .safetensors, not {target.name!r}")
    from saccade.checkpoints import read_state, write_state

    module, _, name = method.converter.partition(":")
    state = getattr(importlib.import_module(module), name)(read_state(source))
    write_state(state, target)
    licence = f"; their licence: {method.licence}" if method.licence else ""
    typer.echo(f"{len(state)} tensors written to {target} (weights of {method.repository or 'its authors'}{licence})")
