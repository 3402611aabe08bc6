"""Tiny videos for tests."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from saccade.data.video import write_video


def moving(frames: int = 12, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """Frames (t, 3, h, w) that all differ."""
    ground = torch.randint(0, 255, (3, height, width), generator=torch.Generator().manual_seed(seed)).float()
    smooth = torch.nn.functional.avg_pool2d(ground[None], 9, 1, 4)[0]
    clip = torch.stack([smooth.roll(2 * t, 2) for t in range(frames)])
    for t in range(frames):
        clip[t, :, :6, : 4 * (t + 1)] = 20.0 * (t % 12)
    return clip.clamp(0, 255).byte()


def video(path: Path, frames: int = 12, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(path.suffix, "libx264")
    write_video(path, moving(frames, seed=seed), codec=codec, **options)
    return path


def jpegs(folder: Path, frames: int = 12, template: str = "img_{:05d}.jpg", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(moving(frames, seed=seed), start=1):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(folder / template.format(number))
    return folder


def truncated(path: Path, share: float = 0.6, front: bool = True) -> Path:
    """A video of which the end is missing; with `front` its header is at the front and promises all frames."""
    video(path, frames=40, **({"container_options": {"movflags": "faststart"}} if front else {}))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def empty(path: Path) -> Path:
    """A video without frames."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return path
