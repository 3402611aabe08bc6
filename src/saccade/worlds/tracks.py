"""The track world: a few objects wander over a grid of cells and change their state; tokens instead of pixels.

Each token is one cell of one frame: who is there (an identity), in which state, and, once, a mark. The question is in
which order the marked object goes through three states. The mark is on its first token alone; whoever wants the rest
has to find the same identity in the other frames, wherever it is by then. Identities are new in each clip, so there is
nothing to learn by heart. With `speed=0` objects stay where they are, and looking at the same cell is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.worlds.draws import addresses, normal, uniform

ORDERS = tuple(permutations(range(3)))
"""Orders of the three states by class."""

IDENTITY, STATE = 8, 8
STATE_LENGTH, MARK, NOISE = 1.5, 2.0, 0.2


@dataclass(frozen=True)
class Tracks:
    """Clips of tokens with all that is true of them.

    Attributes:
        tokens: Frame-major, index `f * side * side + cell`: identity (8), state (8), mark (1).
        label: Class of the marked object, an index of `ORDERS`.
        query: Where its first token is, in frame 0.
        cell: Where each object is in each frame; the marked one is object 0.
        order: Class of each object.
    """

    tokens: Float[Tensor, "b n c"]
    label: Int[Tensor, " b"]
    query: Int[Tensor, " b"]
    cell: Int[Tensor, "b objects t"]
    order: Int[Tensor, "b objects"]


@dataclass(frozen=True)
class TrackWorld:
    """How hard the world is.

    Args:
        speed: Cells that each object moves a frame; the grid is a torus.
        side: Cells of a row and of a column.
        frames: Frames in a clip, a multiple of 3: each state lasts a third.
        objects: How many, the marked one included; they start in different cells, and the marked one is never hidden.
        turn: Standard deviation of the change of heading, radians a frame.
        seed: Of the world.

    Raises:
        ValueError: More objects than cells, frames that three states do not share evenly, a negative speed.

    Example:
        >>> clips = TrackWorld(speed=1.27).batch("train", range(2))
        >>> clips.tokens.shape, clips.cell.shape
        (torch.Size([2, 150, 17]), torch.Size([2, 4, 6]))
    """

    speed: float = 1.27
    side: int = 5
    frames: int = 6
    objects: int = 4
    turn: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.objects <= self.side**2:
            raise ValueError(f"objects has to be from 1 to {self.side**2}, the number of cells, not {self.objects}")
        if self.frames < 3 or self.frames % 3:
            raise ValueError(f"frames has to be a multiple of 3, the number of states, not {self.frames}")
        if self.speed < 0 or self.turn < 0:
            raise ValueError(f"speed and turn must not be negative: {self}")

    def batch(self, split: str, indices: Sequence[int] | np.ndarray) -> Tracks:
        """Make clips; each is a function of (seed, split, index), however many are made at once.

        Args:
            split: Name, such as `train` or `test`.
            indices: Which.

        Returns:
            The clips.
        """
        keys = addresses(self.seed, split, indices)
        n, cells = len(keys), self.side**2
        start = np.argsort(uniform(keys, "start", (cells,)), axis=1)[:, : self.objects]
        inside = uniform(keys, "inside", (self.objects, 2))
        point = np.stack([start % self.side, start // self.side], axis=-1) + inside
        heading = uniform(keys, "heading", (self.objects,)) * 2 * np.pi
        turns = self.turn * normal(keys, "turns", (self.frames, self.objects))
        cell = np.empty((n, self.objects, self.frames), dtype=np.int64)
        for frame in range(self.frames):
            if frame:
                heading = heading + turns[:, frame]
                point = (point + self.speed * np.stack([np.cos(heading), np.sin(heading)], axis=-1)) % self.side
            column, row = (np.floor(point[..., axis]).astype(np.int64) % self.side for axis in (0, 1))
            cell[:, :, frame] = row * self.side + column
        order = (uniform(keys, "order", (self.objects,)) * len(ORDERS)).astype(np.int64)
        identity = normal(keys, "identity", (self.objects, IDENTITY))
        identity *= np.sqrt(IDENTITY) / np.linalg.norm(identity, axis=-1, keepdims=True)
        states = np.array(ORDERS)[order].repeat(self.frames // 3, axis=-1)  # n objects t
        tokens = np.zeros((n, self.frames, cells, IDENTITY + STATE + 1), dtype=np.float32)
        sample, time = np.arange(n)[:, None], np.arange(self.frames)[None]
        for thing in reversed(range(self.objects)):  # the marked one is written last
            place = sample, time, cell[:, thing]
            tokens[place] = 0
            tokens[(*place, slice(0, IDENTITY))] = identity[:, None, thing]
            tokens[(*place, IDENTITY + states[:, thing])] = STATE_LENGTH
        tokens[..., :-1] += NOISE * normal(keys, "noise", (self.frames, cells, IDENTITY + STATE))
        tokens[np.arange(n), 0, cell[:, 0, 0], -1] = MARK
        return Tracks(
            tokens=torch.from_numpy(tokens.reshape(n, -1, tokens.shape[-1])),
            label=torch.from_numpy(order[:, 0].copy()),
            query=torch.from_numpy(cell[:, 0, 0].copy()),
            cell=torch.from_numpy(cell),
            order=torch.from_numpy(order),
        )
