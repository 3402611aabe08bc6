"""Compressed networks on disk: centroids as they are, indices packed bit by bit, everything else bit for bit.

The file: the eight bytes `SACCADE` and 1; length of the header, 4 bytes, little-endian; the header, JSON, deflated; the
tensors' bytes one after another; CRC-32 of all that stands before. Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from saccade.checkpoints import StateDict, load_strict
from saccade.efficiency.rows import CONVOLUTIONS
from saccade.efficiency.shared_weights import ClusteredModel, LayerClusters, share
from saccade.ops.coding import huffman_decode, huffman_encode, huffman_lengths, pack, unpack, width_of
from saccade.surgery import get_module, map_modules

MAGIC = b"SACCADE\x01"
DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool,
    )
}  # fmt: skip

IndexCode = Literal["smallest", "fixed", "huffman"]


@dataclass(frozen=True)
class CompressedFile:
    """What a file holds.

    Attributes:
        state: State dict of the plain network: weights gathered from their centroids.
        shared: Name of a layer to its centroids (k, d) and indices (n,).
        layers: What is known of the shared layers.
        about: What was written with it, such as how the network is built.
    """

    state: StateDict
    shared: dict[str, tuple[Tensor, Tensor]]
    layers: dict[str, LayerClusters]
    about: dict[str, Any]


def save_compressed(
    clustered: ClusteredModel,
    path: str | Path,
    *,
    code: IndexCode = "smallest",
    about: Mapping[str, Any] | None = None,
) -> int:
    """Write a clustered network.

    Args:
        clustered: The network.
        path: The file; its folder must exist.
        code: Of indices: `fixed`, ceil(log2 k) bits each; `huffman`; or for each layer the `smallest` of both.
        about: What else to keep, in JSON's types.

    Returns:
        Bytes written.

    Example:
        >>> import tempfile
        >>> from saccade.efficiency import cluster_weights
        >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32))
        >>> shared, file = cluster_weights(net, 8), Path(tempfile.mkdtemp()) / "small.skm"
        >>> save_compressed(shared, file) < 0.5 * sum(4 * tensor.numel() for tensor in net.state_dict().values())
        True
        >>> loaded = load_compressed(file, net).materialize().state_dict()
        >>> all(bool((loaded[key] == value).all()) for key, value in shared.materialize().state_dict().items())
        True
    """
    if code not in ("smallest", "fixed", "huffman"):
        raise ValueError(f"code is 'smallest', 'fixed' or 'huffman', not {code!r}")
    shared = clustered.shared()
    gathered = {f"{name}.indices".lstrip(".") for name in shared}
    tensors: list[list[Any]] = []
    layers: list[list[Any]] = []
    payload = bytearray()
    for key, value in clustered.network.state_dict().items():
        value = value.detach().cpu().contiguous()
        if key in gathered:
            continue
        name = str(value.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise ValueError(f"{key} is of type {name}; {', '.join(DTYPES)} can be written")
        content = value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        narrow = value.dtype == torch.int64 and value.numel() == 1 and 0 <= int(value) < 2**31  # counters
        tensors.append([key, name, list(value.shape), *([int(value)] if narrow else [])])
        payload += b"" if narrow else content
    for name, module in shared.items():
        indices, k = module.indices.cpu().long(), len(module.centroids)
        known = clustered.layers.get(name)
        clusters = k if known is None else known.clusters
        figures = [0.0, 0.0] if known is None else [known.mse, known.variance]
        packed = pack(indices, width_of(k))
        lengths = huffman_lengths(torch.bincount(indices, minlength=k))
        table = torch.cat([lengths.to(torch.uint8), huffman_encode(indices, lengths)])
        entropy = code == "huffman" or (code == "smallest" and len(table) < len(packed))
        chosen = table if entropy else packed
        layers.append([name, list(module.weight_shape), clusters, int(entropy), len(chosen), *figures])
        payload += chosen.numpy().tobytes()
    header = zlib.compress(json.dumps([tensors, layers, dict(about or {})], separators=(",", ":")).encode(), 9)
    content = MAGIC + struct.pack("<I", len(header)) + header + bytes(payload)
    content += struct.pack("<I", zlib.crc32(content))
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(content)
    partial.replace(target)
    return len(content)


def read_compressed(path: str | Path) -> CompressedFile:
    """Read a file that `save_compressed` wrote.

    Args:
        path: The file.

    Returns:
        Its content: the weights as they are used, and what they are gathered from.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another kind of file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no compressed network at {path}")
    content = path.read_bytes()
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is no compressed network: it does not begin with {MAGIC!r}")
    if len(content) < len(MAGIC) + 8 or zlib.crc32(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
        raise ValueError(f"{path} is damaged: its checksum does not fit, or its end is missing")
    begin = len(MAGIC) + 4
    end = begin + struct.unpack("<I", content[len(MAGIC) : begin])[0]
    try:
        tensors, layers, about = json.loads(zlib.decompress(content[begin:end]))
        return _decode(memoryview(content)[end:-4], tensors, layers, about)
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path} is no intact compressed network: {error}") from None


def _decode(payload: memoryview, tensors: list[Any], layers: list[Any], about: dict[str, Any]) -> CompressedFile:
    place = 0

    def take(size: int) -> Tensor:
        nonlocal place
        if place + size > len(payload):
            raise ValueError("the data end early")
        place += size
        return torch.from_numpy(np.frombuffer(payload, np.uint8, size, place - size).copy())

    stored: StateDict = {}
    for key, dtype, shape, *value in tensors:
        kind = DTYPES[dtype]
        if value:
            stored[key] = torch.tensor(value[0], dtype=kind).reshape(shape)
        else:
            stored[key] = take(int(np.prod(shape)) * kind.itemsize).view(kind).reshape(shape)
    shared: dict[str, tuple[Tensor, Tensor]] = {}
    known: dict[str, LayerClusters] = {}
    weights: dict[str, Tensor] = {}
    for name, shape, clusters, entropy, size, mse, variance in layers:
        dot = f"{name}." if name else ""
        centroids, rows, code = stored[f"{dot}centroids"], int(np.prod(shape[:-1])), take(size)
        k = len(centroids)
        indices = huffman_decode(code[k:], code[:k].long(), rows) if entropy else unpack(code, width_of(k), rows)
        if rows and int(indices.max()) >= k:
            raise ValueError(f"layer {name!r} has an index beyond its {k} centroids")
        shared[name], known[name] = (centroids, indices), LayerClusters(clusters, rows, None, mse, variance)
        weights[f"{dot}centroids"] = centroids[indices].reshape(shape)
    if place != len(payload):
        raise ValueError(f"{len(payload) - place} bytes are left over")
    state = {
        key.removesuffix("centroids") + "weight" if key in weights else key: weights.get(key, value)
        for key, value in stored.items()
    }
    return CompressedFile(state, shared, known, about)


def load_compressed(path: str | Path, model: nn.Module) -> ClusteredModel:
    """The clustered network of a file, for use or for further training of its centroids.

    Args:
        path: The file.
        model: A network of the architecture that was clustered, with any weights; it is not changed.

    Returns:
        The same network as was saved, to the bit.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A damaged file, or one of another architecture; the message lists what does not fit.
    """
    found = read_compressed(path)
    network = copy.deepcopy(model)
    for name in found.shared:
        layer = get_module(network, name)
        if not isinstance(layer, CONVOLUTIONS):
            raise ValueError(f"{path}: layer {name!r} is a {type(layer).__name__} in {type(model).__name__}")
    own = network.state_dict()
    network.to(dtype=next((v.dtype for k, v in found.state.items() if v.is_floating_point() and k in own), None))
    load_strict(network, found.state)
    chosen = {get_module(network, name): pair for name, pair in found.shared.items()}
    if network in chosen:
        return ClusteredModel(share(network, *chosen[network]), found.layers)
    map_modules(network, lambda module: module in chosen, lambda _, conv: share(conv, *chosen[conv]))
    return ClusteredModel(network, found.layers)
