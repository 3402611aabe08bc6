"""A GPU that exists in memory alone: placement rules, instance ids, power, energy, and the commands of the real tool.

Planning, sampling, exporting and partitioning are tried on it without hardware. Time is a clock that its user advances.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from saccade.efficiency.migperf.inventory import (
    ACTIVITY,
    ENERGY,
    FIELDS,
    MEMORY_FREE,
    MEMORY_USED,
    POWER,
    Backend,
    Gpu,
    GpuLost,
    Key,
    MigDevice,
    Placement,
    Reading,
)
from saccade.efficiency.migperf.layouts import Instance, LayoutImpossible, conflict, first_fit
from saccade.efficiency.migperf.profiles import GpuModel, gpu_model


@dataclass(frozen=True)
class Completed:
    """A command that ended.

    Args:
        returncode: 0 where it did what was asked.
        stdout: What it printed.
        stderr: Its complaint.
    """

    returncode: int
    stdout: str = ""
    stderr: str = ""


@dataclass
class _GpuInstance:
    gi_id: int
    instance: Instance
    compute: list[int] = field(default_factory=list)
    activity: float = 0.0
    memory: float = 0.0


@dataclass
class _State:
    model: GpuModel
    uuid: str
    mig: bool = False
    pending: bool = False
    clients: int = 0
    activity: float = 0.0
    memory: float = 0.0
    millijoules: float = 0.0
    lost: bool = False
    instances: list[_GpuInstance] = field(default_factory=list)


class Refused(RuntimeError):  # noqa: N818
    """The simulated driver does not do it."""


class SimulatedBackend(Backend):
    """Simulated GPUs.

    Args:
        models: A GPU each, such as `["a100-80gb"]`.
        seed: Of the UUIDs, which are hashes of it and of the placement.
        supports: Fields that reading gives; a slice has no power of its own, as in NVML.

    Example:
        >>> backend = SimulatedBackend(["a30"])
        >>> backend.set_mig(0, True)
        >>> backend.create(0, "2g.12gb"), [device.profile for device in backend.gpus()[0].devices]
        (1, ['2g.12gb'])
    """

    name = "simulated"

    def __init__(
        self,
        models: Sequence[str | GpuModel] = ("a100-80gb",),
        seed: int = 0,
        supports: Sequence[str] = (POWER, ENERGY, MEMORY_USED, MEMORY_FREE, ACTIVITY, "DCGM_FI_DEV_GPU_UTIL"),
    ) -> None:
        unknown = sorted(set(supports) - set(FIELDS))
        if unknown:
            raise ValueError(f"unknown fields {', '.join(unknown)}; there is {', '.join(FIELDS)}")
        self.seed, self.supports, self.now = seed, tuple(supports), 0.0
        self._gpus = [
            _State(gpu_model(model) if isinstance(model, str) else model, _uuid("GPU", seed, index))
            for index, model in enumerate(models)
        ]

    def gpus(self) -> list[Gpu]:
        """GPUs with their slices, those that begin first before the others."""
        return [
            Gpu(
                index,
                f"Simulated {state.model.name}",
                state.uuid,
                "simulated",
                memory_total=1024 * state.model.memory,
                memory_used=self._memory(state),
                mig=state.mig,
                mig_pending=state.pending,
                devices=self._devices(state),
            )
            for index, state in enumerate(self._gpus)
        ]

    def read(self, key: Key) -> Reading:
        """Power is that of the whole GPU; a slice has activity and memory of its own."""
        gpu, gi = key
        state = self._state(gpu)
        if state.lost:
            raise GpuLost(f"GPU {gpu} is lost")
        total = 1024 * state.model.memory
        fields: Reading = {POWER: self.power(gpu), ENERGY: state.millijoules}
        if gi is None:
            used = self._memory(state)
            load = self._load(state)
            fields |= {MEMORY_USED: used, MEMORY_FREE: total - used, ACTIVITY: load}
            fields["DCGM_FI_DEV_GPU_UTIL"] = None if state.mig else 100 * load
        else:
            own = self._instance(state, gi)
            size = total * own.instance.profile.memory_slices / state.model.memory_slices
            fields |= {MEMORY_USED: own.memory, MEMORY_FREE: size - own.memory, ACTIVITY: own.activity}
            fields["DCGM_FI_DEV_GPU_UTIL"] = None
        return {name: fields[name] for name in fields if name in self.supports}

    def advance(self, seconds: float) -> None:
        """Let time pass; energy is counted.

        Raises:
            ValueError: Backwards.
        """
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s")
        for index, state in enumerate(self._gpus):
            state.millijoules += 1000 * self.power(index) * seconds
        self.now += seconds

    def load(self, key: Key, activity: float, memory: float = 0.0) -> None:
        """Put work on a device.

        Args:
            key: GPU index, and GPU instance id or `None`.
            activity: Share of its own compute that is busy, 0 to 1.
            memory: MiB in use.

        Raises:
            ValueError: An activity outside of 0 to 1, or no such device.
        """
        if not 0 <= activity <= 1:
            raise ValueError(f"activity is a share from 0 to 1, not {activity}")
        state = self._state(key[0])
        own = state if key[1] is None else self._instance(state, key[1])
        own.activity, own.memory = activity, memory

    def power(self, gpu: int) -> float:
        """Idle power, and the rest by the share of compute that is busy (W)."""
        state = self._state(gpu)
        return state.model.idle_power + (state.model.peak_power - state.model.idle_power) * self._load(state)

    def lose(self, gpu: int) -> None:
        """Let a GPU fall off the bus."""
        self._state(gpu).lost = True

    def attach(self, gpu: int, clients: int) -> None:
        """So many clients run on the GPU: while there are any, a change of its mode stays pending."""
        self._state(gpu).clients = clients
        if not clients:
            self._state(gpu).mig = self._state(gpu).pending

    def set_mig(self, gpu: int, enabled: bool) -> None:
        """Switch partitioning on or off; with clients running, the mode stays pending.

        Raises:
            Refused: Instances are left.
        """
        state = self._state(gpu)
        if not enabled and state.instances:
            raise Refused(f"GPU {gpu} is in use: it still has GPU instances")
        state.pending = enabled
        if not state.clients:
            state.mig = enabled

    def create(self, gpu: int, profile: str, start: int | None = None, compute: bool = True) -> int:
        """Make a GPU instance.

        Args:
            gpu: Index.
            profile: Such as `1g.10gb`, or the driver's number for it.
            start: Its first slice of memory; the first that fits where `None`.
            compute: Whether it gets its default compute instance.

        Returns:
            The instance's id: not in the order of placement, as with the real tool.

        Raises:
            Refused: Not partitioned, or no room.
            ValueError: No such profile or start.
        """
        state = self._state(gpu)
        if not state.mig:
            raise Refused(f"GPU {gpu} is not in MIG mode")
        numbered = {str(own.id): own.name for own in state.model.profiles.values()}
        kind = state.model.profile(numbered.get(profile, profile))
        taken = [own.instance for own in state.instances]
        if start is None:
            try:
                (instance,) = first_fit(state.model, [kind.name], taken)
            except LayoutImpossible as error:
                raise Refused(f"insufficient resources: {error}") from None
        elif start not in kind.starts:
            raise ValueError(f"{kind.name} may begin at {', '.join(map(str, kind.starts))}, not at {start}")
        else:
            instance = Instance(kind, start)
            if why := conflict(state.model, taken, instance):
                raise Refused(f"insufficient resources: {why}")
        gi_id = self._free_id(state, instance)
        state.instances.append(_GpuInstance(gi_id, instance, [0] if compute else []))
        return gi_id

    def create_compute(self, gpu: int, gi: int) -> int:
        """Make a compute instance of the whole GPU instance.

        Raises:
            Refused: It has one.
        """
        own = self._instance(self._state(gpu), gi)
        if own.compute:
            raise Refused(f"GPU instance {gi} has no compute left for another compute instance")
        own.compute.append(0)
        return 0

    def destroy_compute(self, gpu: int, gi: int | None = None, ci: int | None = None) -> None:
        """Remove compute instances: of one GPU instance or of all, one or all."""
        for own in self._state(gpu).instances:
            if gi in (None, own.gi_id):
                own.compute = [number for number in own.compute if ci not in (None, number)]

    def destroy(self, gpu: int, gi: int | None = None) -> None:
        """Remove GPU instances, one or all.

        Raises:
            Refused: A compute instance is left in one.
        """
        state = self._state(gpu)
        gone = [own for own in state.instances if gi in (None, own.gi_id)]
        for own in gone:
            if own.compute:
                raise Refused(f"GPU instance {own.gi_id} is in use: destroy its compute instances first")
        state.instances = [own for own in state.instances if own not in gone]

    def instances(self, gpu: int) -> Mapping[int, Instance]:
        """GPU instances by id, in the order in which they were made."""
        return {own.gi_id: own.instance for own in self._state(gpu).instances}

    def compute(self, gpu: int, gi: int) -> tuple[int, ...]:
        """Ids of the compute instances of a GPU instance."""
        return tuple(self._instance(self._state(gpu), gi).compute)

    def model(self, gpu: int) -> GpuModel:
        """The table of a GPU."""
        return self._state(gpu).model

    def run(self, command: Sequence[str]) -> Completed:
        """What `nvidia-smi` would do and print."""
        from saccade.efficiency.migperf.simulated_smi import run

        return run(self, command)

    def _state(self, gpu: int) -> _State:
        if not 0 <= gpu < len(self._gpus):
            raise ValueError(f"no GPU {gpu}; there is {', '.join(map(str, range(len(self._gpus)))) or 'none'}")
        return self._gpus[gpu]

    @staticmethod
    def _instance(state: _State, gi: int) -> _GpuInstance:
        for own in state.instances:
            if own.gi_id == gi:
                return own
        there = ", ".join(str(own.gi_id) for own in state.instances) or "none"
        raise ValueError(f"no GPU instance {gi}; there is {there}")

    @staticmethod
    def _free_id(state: _State, instance: Instance) -> int:
        """Ids as the real tool gives them: a range for each size, the small ones last."""
        size = instance.profile.memory_slices
        first = 0 if size == state.model.memory_slices else max(1, state.model.memory_slices // size - 1)
        used = {own.gi_id for own in state.instances}
        return next(number for number in range(first, first + 64) if number not in used)

    def _devices(self, state: _State) -> tuple[MigDevice, ...]:
        ordered = sorted((own for own in state.instances if own.compute), key=lambda own: own.instance.start)
        found: list[MigDevice] = []
        for own in ordered:
            profile = own.instance.profile
            for ci in own.compute:
                found.append(
                    MigDevice(
                        len(found),
                        _uuid("MIG", self.seed, state.uuid, str(own.instance), ci),
                        profile.name,
                        own.gi_id,
                        ci,
                        Placement(own.instance.start, profile.memory_slices),
                        1024 * state.model.memory * profile.memory_slices / state.model.memory_slices,
                        own.memory,
                        profile.compute_slices,
                    )
                )
        return tuple(found)

    @staticmethod
    def _memory(state: _State) -> float:
        return state.memory + sum(own.memory for own in state.instances)

    @staticmethod
    def _load(state: _State) -> float:
        if not state.mig:
            return state.activity
        busy = sum(own.activity * own.instance.profile.compute_slices for own in state.instances)
        return busy / state.model.compute_slices


def _uuid(kind: str, *parts: object) -> str:
    digits = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"{kind}-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
