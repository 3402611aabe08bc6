"""Changing how a GPU is cut: plans always, deeds only where they are allowed twice.

A method of `PartitionController` gives a `Change`: the commands, not yet run. `apply` runs them, and raises
`ChangesNotAllowed` unless the controller was made with `allow_changes=True`; on the command line that takes the option
`--yes-change-mig` and a confirmation. No command here resets a GPU.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.efficiency.migperf.backends import Run, run_command
from saccade.efficiency.migperf.inventory import Backend
from saccade.efficiency.migperf.layouts import plan_layout
from saccade.efficiency.migperf.profiles import GpuModel, gpu_model
from saccade.efficiency.migperf.simulated import Completed

FLAG = "--yes-change-mig"


class ChangesNotAllowed(PermissionError):  # noqa: N818
    """A change was asked for without the flag that allows it."""


@dataclass(frozen=True)
class Change:
    """What would be done.

    Args:
        what: In words.
        commands: Words of each command, in order.
    """

    what: str
    commands: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        """The commands, a line each, to be typed."""
        return "\n".join(shlex.join(command) for command in self.commands)


@dataclass(frozen=True)
class Applied:
    """What came of a change; a refusal of the driver is a result like another.

    Args:
        change: That was applied.
        done: What each command that was run gave; the first refusal is the last.
        refusal: The driver's words where it refused; empty where all was done.
    """

    change: Change
    done: tuple[Completed, ...]
    refusal: str = ""

    @property
    def ok(self) -> bool:
        """Whether all was done."""
        return not self.refusal


class PartitionController:
    """Plans changes of the layout of GPUs, and applies them where that is allowed.

    Args:
        backend: Says what there is; one with `run` (simulated, or `nvidia-smi`'s) also runs the commands.
        allow_changes: Whether `apply` may run anything.
        run: Runs a command; the backend's, else this machine's where nothing is said.

    Example:
        >>> from saccade.efficiency.migperf.simulated import SimulatedBackend
        >>> controller = PartitionController(SimulatedBackend(["a100-80gb"]))
        >>> print(controller.create(0, ["3g.40gb", "1g.10gb"]).text)
        nvidia-smi mig -i 0 -cgi 3g.40gb:0,1g.10gb:4 -C
    """

    def __init__(self, backend: Backend, allow_changes: bool = False, run: Run | None = None) -> None:
        self.backend, self.allow_changes = backend, allow_changes
        self.run: Run = run or getattr(backend, "run", None) or run_command

    def enable(self, gpu: int) -> Change:
        """Switch partitioning on."""
        return self._mode(gpu, True)

    def disable(self, gpu: int) -> Change:
        """Switch partitioning off."""
        return self._mode(gpu, False)

    def create(
        self, gpu: int, profiles: Sequence[str], compute: bool = True, model: str | GpuModel | None = None
    ) -> Change:
        """Make GPU instances at places that suit them all.

        Args:
            gpu: Index.
            profiles: Names.
            compute: Whether each gets its default compute instance.
            model: Of the GPU; found by its name where nothing is said.

        Returns:
            One command.

        Raises:
            ValueError: An unknown GPU or profile, or a layout that is impossible.
        """
        name = self._gpu(gpu)
        layout = plan_layout(gpu_model(name) if model is None else model, profiles)
        wanted = ",".join(str(instance) for instance in layout)
        command = ("nvidia-smi", "mig", "-i", str(gpu), "-cgi", wanted, *(["-C"] if compute else []))
        return Change(f"make {', '.join(profiles)} on GPU {gpu}", (command,))

    def create_compute(self, gpu: int, gi: int, profiles: Sequence[str] = ()) -> Change:
        """Make compute instances in a GPU instance: the default one where no profiles are named."""
        self._gpu(gpu)
        wanted = [",".join(profiles)] if profiles else []
        command = ("nvidia-smi", "mig", "-i", str(gpu), "-gi", str(gi), "-cci", *wanted)
        return Change(f"make a compute instance in GPU instance {gi} of GPU {gpu}", (command,))

    def destroy_compute(self, gpu: int, gi: int | None = None, ci: Sequence[int] = ()) -> Change:
        """Remove compute instances: those named, those of a GPU instance, or all of a GPU."""
        self._gpu(gpu)
        which = ["-ci", ",".join(map(str, ci))] if ci else []
        inside = ["-gi", str(gi)] if gi is not None else []
        command = ("nvidia-smi", "mig", "-dci", *which, *inside, "-i", str(gpu))
        return Change(f"remove compute instances of GPU {gpu}", (command,))

    def destroy(self, gpu: int, gi: Sequence[int] = ()) -> Change:
        """Remove GPU instances, all where none is named; their compute instances have to be gone."""
        self._gpu(gpu)
        which = ["-gi", ",".join(map(str, gi))] if gi else []
        return Change(f"remove GPU instances of GPU {gpu}", (("nvidia-smi", "mig", "-dgi", *which, "-i", str(gpu)),))

    def repartition(self, gpu: int, profiles: Sequence[str], model: str | GpuModel | None = None) -> Change:
        """From whatever is there to a layout: what is there is removed, partitioning switched on where it is off."""
        here = next(own for own in self.backend.gpus() if self._gpu(gpu) and own.index == gpu)
        commands = self.create(gpu, profiles, model=model).commands
        if here.mig and here.devices:
            commands = (*self.destroy_compute(gpu).commands, *self.destroy(gpu).commands, *commands)
        elif not here.mig:
            commands = (*self.enable(gpu).commands, *commands)
        return Change(f"cut GPU {gpu} into {', '.join(profiles)}", commands)

    def listing(self, what: str, gpu: int | None = None) -> Completed:
        """Run a command that only lists; this needs no permission.

        Args:
            what: `lgi`, `lci`, `lgip` (profiles), `lgipp` (possible placements) or `lcip`.
            gpu: Index; all where nothing is said.

        Returns:
            What it printed.

        Raises:
            ValueError: Another word.
        """
        if what not in ("lgi", "lci", "lgip", "lgipp", "lcip"):
            raise ValueError(f"a listing is lgi, lci, lgip, lgipp or lcip, not {what!r}")
        return self.run(["nvidia-smi", "mig", f"-{what}", *([] if gpu is None else ["-i", str(gpu)])])

    def start_mps(self, gpu: int) -> Change:
        """Start the daemon through which processes share a GPU."""
        command = ("env", f"CUDA_VISIBLE_DEVICES={gpu}", "nvidia-cuda-mps-control", "-d")
        self._gpu(gpu)
        return Change(f"start MPS on GPU {gpu}", (command,))

    def stop_mps(self) -> Change:
        """Ask the daemon to quit."""
        return Change("stop MPS", (("sh", "-c", "echo quit | nvidia-cuda-mps-control"),))

    def apply(self, change: Change) -> Applied:
        """Run the commands of a change, up to the first that is refused.

        Args:
            change: From one of the other methods.

        Returns:
            What came of it.

        Raises:
            ChangesNotAllowed: The controller may not change anything; the message holds the commands.
        """
        if not self.allow_changes:
            raise ChangesNotAllowed(
                f"to {change.what} changes the state of a GPU: it takes allow_changes=True "
                f"({FLAG} on the command line). The commands: {change.text}"
            )
        done: list[Completed] = []
        for command in change.commands:
            done.append(self.run(command))
            if done[-1].returncode:
                said = (done[-1].stderr or done[-1].stdout).strip() or "nothing said"
                return Applied(change, tuple(done), f"`{shlex.join(command)}` ended with {done[-1].returncode}: {said}")
        return Applied(change, tuple(done))

    def _mode(self, gpu: int, on: bool) -> Change:
        self._gpu(gpu)
        what = f"switch MIG {'on' if on else 'off'} for GPU {gpu}"
        return Change(what, (("nvidia-smi", "-i", str(gpu), "-mig", str(int(on))),))

    def _gpu(self, index: int) -> str:
        """Name of a GPU that can be cut."""
        gpus = {gpu.index: gpu for gpu in self.backend.gpus() if gpu.kind != "cpu"}
        if index not in gpus:
            there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus.values()) or "none on this machine"
            raise ValueError(f"no GPU {index}; there is {there}")
        return gpus[index].name


def mps_running(proc: Path = Path("/proc")) -> bool:
    """Whether the daemon of MPS is alive.

    Args:
        proc: Where the system lists its processes.
    """
    for path in proc.glob("[0-9]*/cmdline"):
        try:
            if b"nvidia-cuda-mps-control" in path.read_bytes().split(b"\0")[0]:
                return True
        except OSError:
            continue
    return False
