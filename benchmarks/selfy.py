"""STSS and its extraction against the plain formulation: unfolded features, and convolutions of (1, 3, 3) kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.action.selfy_extraction import ConvExtraction
from saccade.bench import Comparison
from saccade.ops.correlation import l2_normalize, spatio_temporal_self_similarity

WINDOW, CHANNELS, SIDE = (5, 9, 9), 128, 14


def unfolded_self_similarity(features: Tensor, window: tuple[int, int, int] = WINDOW) -> Tensor:
    """The paper's definition: unfold the features of each frame, multiply, sum over channels, offset by offset."""
    n, t, c, h, w = features.shape
    offsets, side, _ = window
    f = l2_normalize(features.flatten(0, 1))
    patches = F.unfold(f, side, padding=side // 2).view(n, t, c, side * side, h * w)
    patches = F.pad(patches, (0, 0) * 3 + (offsets // 2,) * 2)
    f = f.view(n, t, c, h * w)
    similarity = [torch.einsum("ntcp,ntcup->ntpu", f, patches[:, i : i + t]) for i in range(offsets)]
    return torch.stack(similarity, dim=3).view(n, t, h, w, *window)


class PlainExtraction(nn.Module):
    """The authors' layers: each position is a volume (1, l, u, v), and kernels are (1, 3, 3)."""

    def __init__(self, channels: Sequence[int] = (4, 16, 64, 64), strides: Sequence[int] = (1, 2, 2, 1)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise((1, *channels))):
            step, padding = (1, strides[i], strides[i]), (0, 1, 1) if i < len(channels) - 1 else 0
            layers += [
                nn.Conv3d(inputs, outputs, (1, 3, 3), step, padding, bias=False),
                nn.BatchNorm3d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, similarity: Tensor) -> Tensor:
        """Features (b, l, t, c, h, w)."""
        places = similarity.shape[:4]
        x = self.layers(similarity.flatten(0, 3).unsqueeze(1))
        return x.flatten(2).unflatten(0, places).permute(0, 5, 1, 4, 2, 3)


def sides(frames: int, channels: int = CHANNELS, side: int = SIDE) -> tuple[ConvExtraction, PlainExtraction, Tensor]:
    """Ours, its plain twin with the same weights, and the features of one clip."""
    torch.manual_seed(0)
    ours, plain = ConvExtraction(WINDOW[1]), PlainExtraction()
    state = [value.unsqueeze(2) if value.ndim == 4 else value for value in ours.state_dict().values()]
    plain.load_state_dict(dict(zip(plain.state_dict(), state, strict=True)))
    return ours, plain, torch.randn(1, frames, channels, side, side, requires_grad=True)


def comparison(frames: int) -> Comparison:
    """Forward and backward, in training mode, of one clip."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours, plain, x = sides(frames)
    ours, plain, x = ours.to(device), plain.to(device), x.detach().to(device).requires_grad_()
    images = frames * WINDOW[0] * SIDE**2
    return Comparison(
        name=f"STSS and extraction forward + backward, {SIDE} x {SIDE}, window 5 x 9 x 9 (a clip of {frames} frames)",
        ours=lambda: ours(spatio_temporal_self_similarity(x, WINDOW)).sum().backward(),
        peer=lambda: plain(unfolded_self_similarity(x)).sum().backward(),
        peer_name="unfolded features, 3D convolutions",
        target=2.0,
        memory_target=4.0,
        limit=f"operations: {3 * images * 136_800 / 1e9:.1f} G multiply-adds of the convolutions",
    )


def comparisons() -> Iterator[Comparison]:
    """A clip of the paper's size, and longer ones."""
    for frames in (8, 16, 32, 64):
        yield comparison(frames)
