"""Global temporal attention against entangled non-local attention (space and time at once, through fused SDPA).

Limit: 2 T P² d products in each frame for space, N T² d P for time, against 2 T² P² d; and the projections of both.
"""

from collections.abc import Iterator

import torch

from saccade.action.gta import GlobalTemporalAttention
from saccade.bench import Comparison


def comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for frames in (8, 16, 32, 64):
        x = torch.randn(1, 256, frames, 14, 14, device=device, requires_grad=True)
        ours = GlobalTemporalAttention(256, frames, scale=1.0).to(device)
        peer = GlobalTemporalAttention(256, frames, temporal="joint", scale=1.0).to(device)
        yield Comparison(
            name=f"GTA block forward + backward, 14 x 14 cells, 256 channels (a clip of {frames} frames)",
            ours=lambda block=ours, x=x: block(x).sum().backward(),
            peer=lambda block=peer, x=x: block(x).sum().backward(),
            peer_name="entangled non-local with SDPA",
            target=1.0,
            memory_target=1 / 3,  # three parts in the place of one
            limit="projections; attention inside frames",
        )
