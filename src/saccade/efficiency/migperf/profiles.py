"""Which slices a GPU can be cut into, and where each may lie: NVIDIA's placement tables.

Slices of compute (`g`) and of memory are counted apart: an A100 has seven of the one and eight of the other, so that
`3g.40gb` twice takes all of the memory and leaves a slice of compute idle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.spelling import near_it


@dataclass(frozen=True)
class Profile:
    """A kind of slice.

    Args:
        name: Such as `1g.10gb`.
        id: The driver's number for it.
        compute_slices: How many of the GPU's.
        memory_slices: How many of the GPU's.
        starts: Memory slices where it may begin.
        media: Whether it carries the media engines (`+me`), which one instance alone can have.
    """

    name: str
    id: int
    compute_slices: int
    memory_slices: int
    starts: tuple[int, ...]
    media: bool = False


@dataclass(frozen=True)
class GpuModel:
    """A GPU and its profiles.

    Args:
        name: Such as `a100-80gb`.
        compute_slices: In all.
        memory_slices: In all.
        memory: GiB in all.
        profiles: By name.
        idle_power: W, for simulation.
        peak_power: W, for simulation.
    """

    name: str
    compute_slices: int
    memory_slices: int
    memory: float
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    idle_power: float = 60.0
    peak_power: float = 400.0

    def __post_init__(self) -> None:
        for profile in self.profiles.values():
            ends = [start + profile.memory_slices for start in profile.starts]
            if not ends or min(profile.starts) < 0 or max(ends) > self.memory_slices:
                raise ValueError(
                    f"{profile.name} of {profile.memory_slices} memory slices cannot begin at {list(profile.starts)} "
                    f"on a GPU of {self.memory_slices}"
                )

    def profile(self, name: str) -> Profile:
        """A profile by name, with or without the driver's `MIG ` before it.

        Raises:
            ValueError: This GPU does not offer it.
        """
        bare = name.removeprefix("MIG ").strip()
        if bare in self.profiles:
            return self.profiles[bare]
        raise ValueError(f"{self.name} offers no profile {name!r}; it offers {', '.join(self.profiles)}")

    @staticmethod
    def from_table(
        name: str, compute_slices: int, memory_slices: int, table: Mapping[str, Mapping[str, Any]]
    ) -> GpuModel:
        """A model of one's own.

        Args:
            name: What to call it.
            compute_slices: In all.
            memory_slices: In all.
            table: Profile name to `id`, `compute_slices`, `memory_slices` and `starts`.

        Returns:
            It.
        """
        profiles = {
            own: Profile(
                own,
                int(row["id"]),
                int(row["compute_slices"]),
                int(row["memory_slices"]),
                tuple(int(start) for start in row["starts"]),
                "+me" in own,
            )
            for own, row in table.items()
        }
        gigabytes = [float(match[1]) for own in profiles if (match := re.search(r"(\d+)gb", own))]
        return GpuModel(name, compute_slices, memory_slices, max(gigabytes, default=0.0), profiles)


def _seven(name: str, sizes: tuple[int, int, int, int, int, int], peak: float) -> GpuModel:
    one, double, two, three, four, seven = sizes
    rows = [
        Profile(f"1g.{one}gb", 19, 1, 1, tuple(range(7))),
        Profile(f"1g.{one}gb+me", 20, 1, 1, tuple(range(7)), media=True),
        Profile(f"1g.{double}gb", 15, 1, 2, (0, 2, 4, 6)),
        Profile(f"2g.{two}gb", 14, 2, 2, (0, 2, 4)),
        Profile(f"3g.{three}gb", 9, 3, 4, (0, 4)),
        Profile(f"4g.{four}gb", 5, 4, 4, (0,)),
        Profile(f"7g.{seven}gb", 0, 7, 8, (0,)),
    ]
    return GpuModel(name, 7, 8, float(seven), {row.name: row for row in rows}, peak_power=peak)


_A30 = (
    Profile("1g.6gb", 14, 1, 1, (0, 1, 2, 3)),
    Profile("1g.6gb+me", 21, 1, 1, (0, 1, 2, 3), media=True),
    Profile("2g.12gb", 5, 2, 2, (0, 2)),
    Profile("2g.12gb+me", 6, 2, 2, (0, 2), media=True),
    Profile("4g.24gb", 0, 4, 4, (0,)),
)

GPU_MODELS: dict[str, GpuModel] = {
    "a30-24gb": GpuModel("a30-24gb", 4, 4, 24.0, {row.name: row for row in _A30}, 30.0, 165.0),
    "a100-40gb": _seven("a100-40gb", (5, 10, 10, 20, 20, 40), 400.0),
    "a100-80gb": _seven("a100-80gb", (10, 20, 20, 40, 40, 80), 400.0),
    "h100-80gb": _seven("h100-80gb", (10, 20, 20, 40, 40, 80), 700.0),
    "h200-141gb": _seven("h200-141gb", (18, 35, 35, 71, 71, 141), 700.0),
}
"""The GPUs whose tables are known."""

_SHORT = {"a30": "a30-24gb", "a100": "a100-80gb", "h100": "h100-80gb", "h200": "h200-141gb"}


def gpu_model(name: str) -> GpuModel:
    """A GPU by name.

    Args:
        name: Such as `a100-80gb`, `a30`, or what the driver says: `NVIDIA A100-SXM4-40GB`.

    Returns:
        Its table.

    Raises:
        ValueError: None is known under that name.

    Example:
        >>> gpu_model("NVIDIA A100-SXM4-40GB").name, gpu_model("h200").profile("3g.71gb").starts
        ('a100-40gb', (0, 4))
    """
    plain = name.lower().strip()
    if plain in GPU_MODELS:
        return GPU_MODELS[plain]
    family = re.search(r"\b(a30|a100|h100|h200)\b", plain)
    if family:
        size = re.search(r"(\d+)\s*gb", plain)
        exact = f"{family[1]}-{size[1]}gb" if size else _SHORT[family[1]]
        if exact in GPU_MODELS:
            return GPU_MODELS[exact]
    hint = near_it(plain, [*GPU_MODELS, *_SHORT], f"there is {', '.join(GPU_MODELS)}")
    raise ValueError(f"no table of slices for a GPU {name!r}; {hint}")
