"""The commands of `nvidia-smi` on simulated GPUs, in the layout of the real tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saccade.efficiency.migperf.inventory import MEMORY_USED, POWER
from saccade.efficiency.migperf.simulated import Completed, Refused, SimulatedBackend

RULE = "+-------------------------------------------------------+"
QUERIES = {"power.draw": POWER, "memory.used": MEMORY_USED, "utilization.gpu": "DCGM_FI_DEV_GPU_UTIL"}


def run(backend: SimulatedBackend, command: Sequence[str]) -> Completed:
    """Do what a command says.

    Args:
        backend: The GPUs.
        command: Beginning with `nvidia-smi`.

    Returns:
        Exit code and texts; a refusal has an exit code other than 0, as with the real tool.
    """
    words = list(command)
    if not words or words[0] != "nvidia-smi":
        return Completed(127, "", f"{words[0] if words else ''}: command not found")
    try:
        if words[1:2] == ["mig"]:
            return Completed(0, _mig(backend, words[2:]))
        return Completed(0, _plain(backend, words[1:]))
    except Refused as error:
        return Completed(19, "", f"{error}")
    except (ValueError, IndexError, StopIteration) as error:
        return Completed(2, "", f"Invalid argument: {error}")


def _options(words: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for number, word in enumerate(words):
        if word.startswith("-"):
            following = words[number + 1] if number + 1 < len(words) else ""
            options[word] = "" if following.startswith("-") else following
    return options


def _chosen(backend: SimulatedBackend, options: dict[str, str]) -> list[int]:
    count = len(backend.gpus())
    if "-i" not in options:
        return list(range(count))
    chosen = int(options["-i"])
    backend.model(chosen)
    return [chosen]


def _plain(backend: SimulatedBackend, words: Sequence[str]) -> str:
    options = _options(words)
    gpus = [backend.gpus()[index] for index in _chosen(backend, options)]
    if "-L" in options:
        lines = []
        for gpu in gpus:
            lines.append(f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})")
            lines += [f"  MIG {d.profile:<11} Device {d.index:>2}: (UUID: {d.uuid})" for d in gpu.devices]
        return "\n".join(lines) + "\n"
    if "-mig" in options:
        for gpu in gpus:
            backend.set_mig(gpu.index, {"0": False, "1": True}[options["-mig"]])
        return "".join(f"Enabled MIG Mode for GPU {gpu.index}\n" for gpu in gpus if options["-mig"] == "1")
    query = next((word.partition("=")[2] for word in words if word.startswith("--query-gpu=")), "")
    if query == "mig.mode.current,mig.mode.pending":
        said = {True: "Enabled", False: "Disabled", None: "[N/A]"}
        return "".join(f"{said[gpu.mig]}, {said[gpu.mig_pending]}\n" for gpu in gpus)
    if query:
        rows = []
        for gpu in gpus:
            fields = backend.read((gpu.index, None))
            values = [fields.get(QUERIES.get(name, "")) for name in query.split(",")]
            rows.append(", ".join("[N/A]" if value is None else f"{value:.2f}" for value in values))
        return "\n".join(rows) + "\n"
    rows = [
        f"|  {gpu.index}  {d.gi_id:>3}   {d.ci_id}   {d.index}  | "
        f"{d.memory_used:>8.0f}MiB / {d.memory_total:.0f}MiB  | 14      0 |"
        for gpu in gpus
        for d in gpu.devices
    ]
    return "\n".join(["| GPU  GI  CI  MIG |         Memory-Usage |        Vol|", *rows]) + "\n"


def _mig(backend: SimulatedBackend, words: Sequence[str]) -> str:
    options = _options(words)
    chosen = _chosen(backend, options)
    instance = int(options["-gi"]) if options.get("-gi") else None
    if "-cgi" in options:
        return _create(backend, chosen, options["-cgi"], "-C" in options)
    if "-cci" in options:
        if instance is None:
            raise ValueError("-cci needs -gi")
        ci = backend.create_compute(chosen[0], instance)
        name = backend.instances(chosen[0])[instance].profile.name
        return (
            f"Successfully created compute instance ID {ci:>2} on GPU {chosen[0]:>2} GPU instance ID {instance:>2} "
            f"using profile MIG {name} (ID  0)\n"
        )
    if "-dci" in options:
        backend.destroy_compute(chosen[0], instance, int(options["-ci"]) if options.get("-ci") else None)
        return "Successfully destroyed compute instances\n"
    if "-dgi" in options:
        backend.destroy(chosen[0], instance)
        return "Successfully destroyed GPU instances\n"
    listing: dict[str, Callable[[SimulatedBackend, int], list[str]]] = {
        "-lgi": _gpu_rows,
        "-lci": _compute_rows,
        "-lgip": _profile_rows,
        "-lgipp": _placement_rows,
    }
    wanted = next(word for word in words if word in listing)
    rows = [row for gpu in chosen for row in listing[wanted](backend, gpu)]
    if not rows:
        return "No GPU instances found: Not Found\n" if wanted == "-lgi" else "No instances found: Not Found\n"
    return "\n".join([RULE, *rows, RULE]) + "\n"


def _create(backend: SimulatedBackend, chosen: Sequence[int], profiles: str, compute: bool) -> str:
    lines = []
    for gpu in chosen:
        for wanted in profiles.split(","):
            name, _, start = wanted.partition(":")
            gi = backend.create(gpu, name, int(start) if start else None, compute)
            kind = backend.instances(gpu)[gi].profile
            lines.append(
                f"Successfully created GPU instance ID {gi:>2} on GPU {gpu:>2} using profile MIG {kind.name} "
                f"(ID {kind.id:>2})"
            )
            if compute:
                lines.append(
                    f"Successfully created compute instance ID  0 on GPU {gpu:>2} GPU instance ID {gi:>2} "
                    f"using profile MIG {kind.name} (ID  0)"
                )
    return "\n".join(lines) + "\n"


def _gpu_rows(backend: SimulatedBackend, gpu: int) -> list[str]:
    return [
        f"|   {gpu}  MIG {own.profile.name:<15} {own.profile.id:>2}       {gi:>2}         "
        f"{own.start}:{own.profile.memory_slices}     |"
        for gi, own in backend.instances(gpu).items()
    ]


def _compute_rows(backend: SimulatedBackend, gpu: int) -> list[str]:
    return [
        f"|   {gpu}     {gi:>2}       MIG {own.profile.name:<15}  0        {ci:>2}         "
        f"0:{own.profile.compute_slices}     |"
        for gi, own in backend.instances(gpu).items()
        for ci in backend.compute(gpu, gi)
    ]


def _profile_rows(backend: SimulatedBackend, gpu: int) -> list[str]:
    return [f"|   {gpu}  MIG {own.name:<15} {own.id:>2}   |" for own in backend.model(gpu).profiles.values()]


def _placement_rows(backend: SimulatedBackend, gpu: int) -> list[str]:
    return [
        f"GPU {gpu:>2} Profile ID {own.id:>2} Placements: {{{','.join(map(str, own.starts))}}}:{own.memory_slices}"
        for own in backend.model(gpu).profiles.values()
    ]
