"""Reading what `nvidia-smi` prints, for machines without the binding.

Success is told by exit codes, never by words in the text; names of profiles are whatever follows `MIG `, so that `+me`
variants and fractions of compute (`1c.3g.40gb`) are read too.
"""

from __future__ import annotations

import re
from typing import Any

_NAME = r"(MIG \S+)"
_PLACE = r"(\d+):(\d+)"
_GPU_INSTANCE = re.compile(rf"^\|\s*(\d+)\s+{_NAME}\s+(\d+)\s+(\d+)\s+{_PLACE}\s*\|", re.M)
_COMPUTE_INSTANCE = re.compile(rf"^\|\s*(\d+)\s+(\d+)\s+{_NAME}\s+(\d+)\s+(\d+)\s+{_PLACE}\s*\|", re.M)
_MADE_GPU = re.compile(
    rf"^Successfully created GPU instance ID\s+(\d+) on GPU\s+(\d+) using profile {_NAME} \(ID\s+(\d+)\)", re.M
)
_MADE_COMPUTE = re.compile(
    r"^Successfully created compute instance ID\s+(\d+) on GPU\s+(\d+) GPU instance ID\s+(\d+) "
    rf"using profile {_NAME} \(ID\s+(\d+)\)",
    re.M,
)
_GPU_LINE = re.compile(r"^GPU\s+(\d+): (.*?) \(UUID: ([^)]+)\)")
_DEVICE_LINE = re.compile(rf"^\s+{_NAME}\s+Device\s+(\d+): \(UUID: ([^)]+)\)")
_DEVICE_ROW = re.compile(r"^\|\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\|\s*(\d+)MiB\s*/\s*(\d+)MiB", re.M)

Record = dict[str, Any]


def mig_status(text: str) -> list[tuple[bool, bool]]:
    r"""Current and pending mode of each GPU, from `--query-gpu=mig.mode.current,mig.mode.pending`.

    A GPU that cannot be partitioned says `[N/A]`, which is not enabled.

    Example:
        >>> mig_status("Enabled, Enabled\nDisabled, Enabled\n[N/A], [N/A]\n")
        [(True, True), (False, True), (False, False)]
    """
    rows = [line.split(",") for line in text.splitlines() if "," in line]
    return [(row[0].strip() == "Enabled", row[1].strip() == "Enabled") for row in rows]


def gpu_instances(text: str) -> list[Record]:
    """Rows of `mig -lgi`: `gpu_id`, `name`, `profile_id`, `gi_id` and `placement`."""
    return [
        {
            "gpu_id": int(gpu),
            "name": name,
            "profile_id": int(profile),
            "gi_id": int(instance),
            "placement": {"start": int(start), "size": int(size)},
        }
        for gpu, name, profile, instance, start, size in _GPU_INSTANCE.findall(text)
    ]


def compute_instances(text: str) -> list[Record]:
    """Rows of `mig -lci`: as `gpu_instances`, with `ci_id`; the placement lies inside the GPU instance."""
    return [
        {
            "gpu_id": int(gpu),
            "gi_id": int(instance),
            "name": name,
            "profile_id": int(profile),
            "ci_id": int(compute),
            "placement": {"start": int(start), "size": int(size)},
        }
        for gpu, instance, name, profile, compute, start, size in _COMPUTE_INSTANCE.findall(text)
    ]


def created_gpu_instances(text: str) -> list[Record]:
    """What `mig -cgi` says that it made."""
    return [
        {"gpu_id": int(gpu), "name": name, "profile_id": int(profile), "gi_id": int(instance)}
        for instance, gpu, name, profile in _MADE_GPU.findall(text)
    ]


def created_compute_instances(text: str) -> list[Record]:
    """What `mig -cci` says that it made."""
    return [
        {"gpu_id": int(gpu), "gi_id": int(instance), "name": name, "ci_id": int(compute), "profile_id": int(profile)}
        for compute, gpu, instance, name, profile in _MADE_COMPUTE.findall(text)
    ]


def listed_devices(text: str) -> list[Record]:
    """Lines of `nvidia-smi -L`: `gpu_id`, `index` (`None` for the GPU itself), `name`, `uuid`."""
    rows: list[Record] = []
    for line in text.splitlines():
        if gpu := _GPU_LINE.match(line):
            rows.append({"gpu_id": int(gpu[1]), "index": None, "name": gpu[2], "uuid": gpu[3]})
        elif (device := _DEVICE_LINE.match(line)) and rows:
            rows.append({"gpu_id": rows[-1]["gpu_id"], "index": int(device[2]), "name": device[1], "uuid": device[3]})
    return rows


def device_uuids(text: str) -> dict[tuple[int, int | None], str]:
    """UUIDs from `nvidia-smi -L`, by GPU and index of the slice, `None` for the GPU itself."""
    return {(row["gpu_id"], row["index"]): row["uuid"] for row in listed_devices(text)}


def device_rows(text: str) -> list[Record]:
    """The table of slices in what a plain `nvidia-smi` prints: which instance each index is, and its memory (MiB)."""
    return [
        dict(zip(("gpu_id", "gi_id", "ci_id", "index", "memory_used", "memory_total"), map(int, row), strict=True))
        for row in _DEVICE_ROW.findall(text)
    ]


def number(text: str) -> float | None:
    """A figure of a `--query-gpu` row; `None` for `[N/A]` and its like.

    Example:
        >>> number(" 61.25"), number("[Not Supported]")
        (61.25, None)
    """
    try:
        return float(text.strip())
    except ValueError:
        return None
