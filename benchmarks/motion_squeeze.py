"""MotionSqueeze against the plain formulation with unfolded features, and clip reading against whole decoding."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.action.motion_squeeze import MotionSqueeze
from saccade.bench import Comparison
from saccade.data.sampling import dense_views, segment_center
from saccade.data.video import VideoReader, write_video
from saccade.ops.correlation import local_correlation

WINDOW, FRAMES, CHANNELS, SIDE = 15, 8, 64, 28


def unfolded_correlation(a: Tensor, b: Tensor, window: int = WINDOW) -> Tensor:
    """The paper's definition: unfold the second map, multiply, sum over channels."""
    n, c, h, w = a.shape
    patches = F.unfold(b, window, padding=window // 2).view(n, c, window * window, h * w)
    return torch.einsum("ncl,ncpl->npl", a.flatten(2), patches).view(n, window, window, h, w)


def plain_soft_argmax(correlation: Tensor, sigma: float, temperature: float) -> tuple[Tensor, Tensor]:
    """Kernel soft-argmax with its Gaussian written out over all displacements."""
    window = correlation.shape[1]
    flat = correlation.flatten(1, 2)
    best = flat.argmax(1, keepdim=True)
    place = torch.arange(window * window, device=flat.device).view(1, -1, 1, 1)
    dy, dx = place // window - best // window, place % window - best % window
    gaussian = torch.exp(-(dy**2 + dx**2).to(flat.dtype) / (2 * sigma**2))
    p = F.softmax(gaussian * flat / temperature, dim=1)
    x = (p * ((place % window) - window // 2)).sum(1) / (window // 2)
    y = (p * ((place // window) - window // 2)).sum(1) / (window // 2)
    return torch.stack([x, y], 1), flat.amax(1, keepdim=True)


class PlainMotionSqueeze(MotionSqueeze):
    """The same block and weights, with the plain formulation of matching."""

    def motion(self, x: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """Flow and confidence."""
        clips = self.reduce(x).unflatten(0, (-1, num_frames))
        clips = clips / (clips.square().sum(2, keepdim=True) + 1e-6).sqrt()
        a, b = clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)
        return plain_soft_argmax(F.relu(unfolded_correlation(a, b, self.window)), self.sigma, self.temperature)


def correlation_sides() -> tuple[Tensor, Tensor, Tensor]:
    """Two maps and a gradient of the benchmark's size."""
    generator = torch.Generator().manual_seed(0)
    pairs = FRAMES - 1
    a, b = (torch.randn(pairs, CHANNELS, SIDE, SIDE, generator=generator).requires_grad_() for _ in range(2))
    return a, b, torch.randn(pairs, WINDOW, WINDOW, SIDE, SIDE, generator=generator)


def blocks(channels: int = 512) -> tuple[MotionSqueeze, PlainMotionSqueeze, Tensor]:
    """The block, its plain twin with the same weights, and features of one clip."""
    torch.manual_seed(0)
    ours, plain = MotionSqueeze(channels), PlainMotionSqueeze(channels)
    plain.load_state_dict(ours.state_dict())
    return ours, plain, torch.randn(FRAMES, channels, SIDE, SIDE, requires_grad=True)


def ten_seconds() -> Tensor:
    """300 frames of 340 x 256: a panning ground, a moving square, sensor noise."""
    generator = torch.Generator().manual_seed(0)
    ground = F.interpolate(torch.rand(1, 3, 40, 52, generator=generator) * 255, (256, 340), mode="bicubic")[0]
    frames = []
    for t in range(300):
        frame = ground.roll((t // 3, t), (1, 2))
        left = 3 * t % 280
        frame[:, 100:150, left : left + 50] = torch.tensor([200.0, 40.0, 40.0]).view(3, 1, 1)
        frames.append((frame + 4 * torch.randn(frame.shape, generator=generator)).clamp(0, 255).byte())
    return torch.stack(frames)


def read_clip(path: Path, indices: Tensor) -> Tensor:
    """Ours: open, read, close."""
    with VideoReader(path) as reader:
        return reader.read(indices)


def decode_whole(path: Path, indices: Tensor) -> Tensor:
    """The plain way: decode every frame to RGB, then pick."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.stack([torch.from_numpy(frames[int(i)]) for i in indices]).permute(0, 3, 1, 2).contiguous()


def comparisons() -> Iterator[Comparison]:
    """Correlation, block, clip reading."""
    a, b, grad = correlation_sides()
    size = f"{FRAMES} frames, {SIDE}x{SIDE}, C={CHANNELS}, window {WINDOW}"
    yield Comparison(
        name=f"correlation forward + backward, {size}",
        ours=lambda: torch.autograd.grad(local_correlation(a, b, WINDOW), (a, b), grad),
        peer=lambda: torch.autograd.grad(unfolded_correlation(a, b), (a, b), grad),
        peer_name="unfolded features",
        target=2.0,
        memory_target=2.0,
        limit="operations: 3 products of 7 x 784 x 225 x 64",
    )
    ours, plain, x = blocks()
    yield Comparison(
        name=f"block forward + backward, {FRAMES} frames, {SIDE}x{SIDE}, 512 channels",
        ours=lambda: ours(x, FRAMES).sum().backward(),
        peer=lambda: plain(x, FRAMES).sum().backward(),
        peer_name="unfolded features",
        target=2.0,
        memory_target=2.0,
        limit="operations: convolutions",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ten-seconds.mp4"
        write_video(path, ten_seconds())  # x264's own key frames, one in 250
        rules = {
            "dense, a window of 64 frames": dense_views(300, 8, 3)[1],
            "segments, over the whole clip": segment_center(300, 8),
        }
        for name, indices in rules.items():
            yield Comparison(
                name=f"8 frames of a 10 s clip ({name})",
                ours=lambda indices=indices: read_clip(path, indices),
                peer=lambda indices=indices: decode_whole(path, indices),
                peer_name="decoding it whole",
                target=3.0,
                limit="operations: decoding the frames that others refer to",
            )
