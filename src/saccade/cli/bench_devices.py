"""`saccade bench devices`, `plan`, `partition` and `serve-metrics`: what a machine has, how to cut it, what it does."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

SIMULATE = typer.Option(help="Simulated GPUs instead, such as a100-80gb,a30.")
TRACE = typer.Option(help="A recorded trace instead.")
EXPORTER = typer.Option(help="Read figures from an exporter: http://localhost:9400/metrics.")


def devices(
    simulate: Annotated[str, SIMULATE] = "",
    trace: Annotated[str, TRACE] = "",
    exporter: Annotated[str, EXPORTER] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """GPUs and their slices, with memory, mode and UUID; the CPU where there is no GPU."""
    from saccade.efficiency.migperf import open_backend

    backend, reasons = open_backend(simulate, trace, exporter)
    gpus = backend.gpus()
    if as_json:
        about = {"backend": backend.name, "left_out": reasons, "devices": [gpu.as_dict() for gpu in gpus]}
        typer.echo(json.dumps(about, indent=1))
        return
    from saccade.efficiency.migperf import Target

    modes = {None: "cannot be cut", False: "whole", True: "cut"}
    for gpu in gpus:
        size = "" if gpu.memory_total is None else f", {gpu.memory_total / 1024:.1f} GiB"
        pending = "" if gpu.mig == gpu.mig_pending else f" ({modes[gpu.mig_pending]} after a reset)"
        typer.echo(f"{Target(gpu).label}: {gpu.name}{size}, {modes[gpu.mig]}{pending}  {gpu.uuid}")
        for own in gpu.devices:
            place = "" if own.placement is None else f" at {own.placement.start}:{own.placement.size}"
            typer.echo(f"  {Target(gpu, own).label}{place}  {own.uuid}")
    for reason in reasons:
        typer.echo(f"left out: {reason}", err=True)


def plan(
    gpu: Annotated[str, typer.Argument(help="Such as a100-80gb, a30, h100 or h200.")],
    profiles: Annotated[list[str] | None, typer.Argument(help="Such as 3g.40gb 2g.20gb; all cuts where none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Places for slices on a GPU, or what is in the way; without profiles every cut to which nothing can be added."""
    from saccade.efficiency.migperf import gpu_model, maximal_layouts, plan_layout

    model = gpu_model(gpu)
    layouts = [plan_layout(model, profiles)] if profiles else maximal_layouts(model)
    if as_json:
        found = [[str(instance) for instance in layout] for layout in layouts]
        typer.echo(json.dumps({"gpu": model.name, "layouts": found}, indent=1))
        return
    for layout in layouts:
        cells = ["."] * model.memory_slices
        for instance in layout:
            for number in instance.slices:
                cells[number] = instance.profile.name[0]
        idle = model.compute_slices - sum(instance.profile.compute_slices for instance in layout)
        rest = f", {idle} compute slice(s) idle" if idle else ""
        typer.echo(f"[{''.join(cells)}] {' '.join(map(str, layout))}{rest}")
    if not profiles:
        typer.echo(f"{len(layouts)} layouts of {model.name}")


def partition(
    profiles: Annotated[list[str] | None, typer.Argument(help="Such as 3g.40gb 2g.20gb.")] = None,
    gpu: Annotated[int, typer.Option(help="Index.")] = 0,
    destroy: Annotated[bool, typer.Option("--destroy", help="Remove all slices of the GPU.")] = False,
    yes_change_mig: Annotated[
        bool, typer.Option("--yes-change-mig", help="Run the commands, after a question, instead of printing them.")
    ] = False,
    confirm: Annotated[str, typer.Option(help="The GPU's UUID: answers the question.")] = "",
    simulate: Annotated[str, SIMULATE] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the commands that cut a GPU; run them only with a flag and a confirmation. It is never reset."""
    from saccade.efficiency.migperf import Change, PartitionController, open_backend

    if bool(profiles) == destroy:
        raise ValueError("name profiles to cut the GPU into, or give --destroy")
    backend, reasons = open_backend(simulate)
    controller = PartitionController(backend, allow_changes=yes_change_mig)
    if destroy:
        commands = (*controller.destroy_compute(gpu).commands, *controller.destroy(gpu).commands)
        change = Change(f"remove all slices of GPU {gpu}", commands)
    else:
        change = controller.repartition(gpu, profiles or [])
    about: dict[str, Any] = {"what": change.what, "commands": change.commands, "done": False, "refusal": ""}
    if not as_json:
        typer.echo(f"to {change.what}:\n{change.text}")
        for reason in reasons:
            typer.echo(f"left out: {reason}", err=True)
    if yes_change_mig:
        uuid = next(own.uuid for own in backend.gpus() if own.index == gpu)
        if confirm and confirm != uuid:
            raise ValueError(f"--confirm is {confirm}, GPU {gpu} is {uuid}: nothing was changed")
        if not confirm and (as_json or not _agreed(change.what, uuid)):
            raise ValueError(f"not confirmed: nothing was changed (--confirm {uuid} answers the question)")
        applied = controller.apply(change)
        about |= {"done": applied.ok, "refusal": applied.refusal}
        if not as_json:
            typer.echo("".join(done.stdout for done in applied.done), nl=False)
            typer.echo("done" if applied.ok else f"refused: {applied.refusal}")
    elif not as_json:
        typer.echo("nothing was changed: it takes --yes-change-mig")
    if as_json:
        typer.echo(json.dumps(about, indent=1))
    if about["refusal"]:
        raise typer.Exit(1)


def serve_metrics(
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 9400,
    bind: Annotated[str, typer.Option(help="Address; this machine alone by default.")] = "127.0.0.1",
    simulate: Annotated[str, SIMULATE] = "",
    trace: Annotated[str, TRACE] = "",
    records: Annotated[list[str] | None, typer.Option(help="Records of runs to serve beside.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the page and leave.")] = False,
) -> None:
    """Serve what devices do to Prometheus, under the names of NVIDIA's exporter, until Ctrl-C."""
    import threading
    from pathlib import Path

    from saccade.efficiency.migperf import PrometheusExporter, open_backend, read_record

    backend, reasons = open_backend(simulate, trace)
    exporter = PrometheusExporter(port, bind, backend)
    for path in records or ():
        exporter.add(read_record(Path(path)))
    if once:
        typer.echo(exporter.text(), nl=False)
        return
    with exporter:
        typer.echo(f"{exporter.url} (Ctrl-C ends)")
        for reason in reasons:
            typer.echo(f"left out: {reason}", err=True)
        threading.Event().wait()


def _agreed(what: str, uuid: str) -> bool:
    try:
        return typer.confirm(f"{what} ({uuid})? Everything that runs on its slices has to have ended.")
    except typer.Abort:
        return False
