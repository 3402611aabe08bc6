"""Trained networks as ONNX files, for programs without torch."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError

from saccade.ops.plain import plain_operators


@dataclass(frozen=True)
class ExportedNetwork:
    """What was written.

    Args:
        path: The file.
        inputs: Shape of the input; `batch` where its size is free.
        outputs: Shape of the output.
        difference: Largest difference between its output and the network's on random input, of another size of the
            batch where that is free.
    """

    path: Path
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    difference: float


def export_onnx(model: nn.Module, example: Tensor, path: str | Path, tolerance: float = 1e-4) -> ExportedNetwork:
    """Write a network as an ONNX file, and check that it computes the same.

    The library's own operators are written in terms of standard ones, which are slower.

    Args:
        model: Called with one tensor; gives one tensor. It is exported in eval mode, and left as it was.
        example: An input. Its first axis, the batch, is free in the file, unless the network knows its size; the
            others are as they are here.
        path: The file, `*.onnx`.
        tolerance: Largest difference that is accepted, absolute and relative to the largest output.

    Returns:
        What was written.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime are not installed (extra `onnx`).
        RuntimeError: The file computes something else; it is removed.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} not installed: an export needs the extra `onnx`")
    path, training = Path(path), model.training
    path.parent.mkdir(parents=True, exist_ok=True)
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            first, wanted, found = _written(model, example, path)
    finally:
        model.train(training)
    difference = float((found - wanted).abs().max())
    if not difference <= tolerance * max(1.0, float(wanted.abs().max())):
        path.unlink()
        raise RuntimeError(f"the exported network differs by {difference:.3g}; {tolerance:g} is accepted")
    return ExportedNetwork(path, (first, *example.shape[1:]), (first, *wanted.shape[1:]), difference)


def _written(model: nn.Module, example: Tensor, path: Path) -> tuple[int | str, Tensor, Tensor]:
    """Write the file; gives its batch, free or fixed, and what network and file make of random input."""
    # a copy, for the exporter leaves its mark on the tensor
    traced = example.expand(max(len(example), 2), *example.shape[1:]).clone(memory_format=torch.contiguous_format)
    free = True
    try:
        shapes: Any = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(model, (traced,), dynamic_shapes=shapes, strict=False)
    except UserError:  # the network knows the size of its batch
        free = False
        program = torch.export.export(model, (example,), strict=False)
    program = program.run_decompositions({**torch.export.default_decompositions(), **plain_operators()})
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(program, (), str(path), external_data=False, verbose=False, **names)
    other = torch.randn(len(example) + (2 if free else 0), *example.shape[1:], dtype=example.dtype)
    found = run_onnx(path, other)
    return "batch" if free else len(example), model(other.to(example.device)).cpu(), found


def network_of(task: nn.Module) -> nn.Module:
    """The network of a task: its `backbone`, `network` or `model`, of several the first.

    Args:
        task: Such as [`load_task`][saccade.training.cli.load_task] gives.

    Returns:
        The network; the task itself where it has none of these.
    """
    for name in ("backbone", "network", "model"):
        if isinstance(found := getattr(task, name, None), nn.Module):
            return found
    return task


def run_onnx(path: str | Path, x: Tensor) -> Tensor:
    """Run an ONNX file on the CPU.

    Args:
        path: The file.
        x: Its input.

    Returns:
        Its output.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


class _quiet:  # noqa: N801
    """Without the log of the exporter."""

    def __enter__(self) -> None:
        self.kept = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
        for name in self.kept:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for name, level in self.kept.items():
            logging.getLogger(name).setLevel(level)
