"""Ways to cut a GPU: what fits beside what, and all cuts to which nothing can be added.

A layout is valid where no two instances share a slice of memory, their slices of compute do not exceed the GPU's, and
one at most carries the media engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saccade.efficiency.migperf.profiles import GpuModel, Profile, gpu_model


class LayoutImpossible(ValueError):  # noqa: N818
    """A profile does not fit beside the others."""


@dataclass(frozen=True)
class Instance:
    """A profile at a place.

    Args:
        profile: The profile.
        start: Its first slice of memory.
    """

    profile: Profile
    start: int

    @property
    def slices(self) -> range:
        """Its slices of memory."""
        return range(self.start, self.start + self.profile.memory_slices)

    def __str__(self) -> str:
        return f"{self.profile.name}:{self.start}"


Layout = tuple[Instance, ...]


def fits(model: GpuModel, taken: Sequence[Instance], instance: Instance) -> bool:
    """Whether an instance can be added.

    Args:
        model: The GPU.
        taken: What lies there.
        instance: What is to be added.

    Returns:
        Whether memory, compute and media engines suffice.
    """
    return not conflict(model, taken, instance)


def conflict(model: GpuModel, taken: Sequence[Instance], instance: Instance) -> str:
    """Why an instance cannot be added; empty where it can."""
    for other in taken:
        shared = sorted(set(other.slices) & set(instance.slices))
        if shared:
            return f"memory slice {shared[0]} is taken by {other}"
    compute = sum(other.profile.compute_slices for other in taken) + instance.profile.compute_slices
    if compute > model.compute_slices:
        return f"{compute} compute slices would be needed, {model.name} has {model.compute_slices}"
    if instance.profile.media and any(other.profile.media for other in taken):
        return "one instance alone can carry the media engines (+me)"
    return ""


def plan_layout(model: str | GpuModel, profiles: Sequence[str]) -> Layout:
    """Find places for slices, by search over all placements: what can be placed, is.

    Args:
        model: A GPU, such as `a100-80gb`.
        profiles: Names, such as `["3g.40gb", "1g.10gb"]`; may repeat.

    Returns:
        An instance for each profile, in their order. Among all solutions the first in the order of allowed starts.

    Raises:
        LayoutImpossible: Names the first profile that cannot be placed beside those before it, and what is in the way.
        ValueError: An unknown GPU or profile, or none.

    Example:
        >>> [str(instance) for instance in plan_layout("a100-80gb", ["1g.10gb", "4g.40gb", "2g.20gb"])]
        ['1g.10gb:6', '4g.40gb:0', '2g.20gb:4']
    """
    own = gpu_model(model) if isinstance(model, str) else model
    if not profiles:
        raise ValueError("a layout needs at least one profile")
    wanted = [own.profile(name) for name in profiles]
    found = next(_placed(own, wanted), None)
    if found is not None:
        return found
    last = next(count for count in range(1, len(wanted) + 1) if next(_placed(own, wanted[:count]), None) is None)
    profile, before = wanted[last - 1], next(_placed(own, wanted[: last - 1]), ())
    reasons = "; ".join(f"at {start}: {conflict(own, before, Instance(profile, start))}" for start in profile.starts)
    beside = ", ".join(str(instance) for instance in before) or "nothing"
    raise LayoutImpossible(f"{profile.name} (number {last}) does not fit on {own.name} beside {beside}: {reasons}")


def first_fit(model: str | GpuModel, profiles: Sequence[str], taken: Sequence[Instance] = ()) -> Layout:
    """Place slices one after the other, each at the first allowed start that is free: as a driver does.

    Args:
        model: A GPU.
        profiles: Names.
        taken: What lies there already.

    Returns:
        The new instances.

    Raises:
        LayoutImpossible: A profile found no place, perhaps for the order alone.
        ValueError: An unknown GPU or profile.
    """
    own = gpu_model(model) if isinstance(model, str) else model
    placed: list[Instance] = []
    for name in profiles:
        profile = own.profile(name)
        here = [*taken, *placed]
        start = next((s for s in profile.starts if fits(own, here, Instance(profile, s))), None)
        if start is None:
            why = conflict(own, here, Instance(profile, profile.starts[0]))
            raise LayoutImpossible(f"{profile.name} does not fit on {own.name}: {why}")
        placed.append(Instance(profile, start))
    return tuple(placed)


def maximal_layouts(model: str | GpuModel, media: bool = False) -> list[Layout]:
    """Every layout to which no instance can be added.

    Args:
        model: A GPU.
        media: Whether profiles with media engines count as profiles of their own.

    Returns:
        Layouts with instances by start, in the order of their texts.

    Example:
        >>> len(maximal_layouts("a30")), [str(instance) for instance in maximal_layouts("a30")[-1]]
        (5, ['4g.24gb:0'])
    """
    own = gpu_model(model) if isinstance(model, str) else model
    everything = [
        Instance(profile, start)
        for profile in own.profiles.values()
        if media or not profile.media
        for start in profile.starts
    ]
    found: list[Layout] = []

    def grow(layout: Layout, at: int) -> None:
        """Add what begins at the slice `at` or behind it."""
        if at == own.memory_slices:
            if not any(fits(own, layout, instance) for instance in everything):
                found.append(layout)
            return
        for instance in everything:
            if instance.start == at and fits(own, layout, instance):
                grow((*layout, instance), at + instance.profile.memory_slices)
        grow(layout, at + 1)

    grow((), 0)
    return sorted(found, key=lambda layout: [str(instance) for instance in layout])


def _placed(model: GpuModel, wanted: Sequence[Profile]) -> Iterator[Layout]:
    """All placements of the profiles in their order; equal profiles are placed from left to right."""

    def place(number: int, taken: Layout) -> Iterator[Layout]:
        if number == len(wanted):
            yield taken
            return
        profile = wanted[number]
        least = max((other.start for other in taken if other.profile == profile), default=-1)
        for start in profile.starts:
            instance = Instance(profile, start)
            if start > least and fits(model, taken, instance):
                yield from place(number + 1, (*taken, instance))

    if sum(profile.compute_slices for profile in wanted) <= model.compute_slices:
        yield from place(0, ())
