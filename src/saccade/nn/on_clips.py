"""Blocks on folded frames, in networks on clips or on tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saccade.ops.temporal import check_clips


class OnClips(nn.Module):
    """Make a block that is called as `block(x, num_frames)` one that takes features alone, to insert it anywhere.

    Blocks such as [`MotionSqueeze`][saccade.action.motion_squeeze.MotionSqueeze] work on frames that are folded into
    the batch. 3D networks hand clips (b, c, t, h, w) on, which are folded for the block and unfolded again. 2D networks
    hand folded frames on, and nothing says how many make a clip: there `num_frames` has to be given.

    Args:
        block: Called as `block(x, num_frames)` with (b*t, c, h, w); gives the same shape.
        num_frames: Frames in a clip, for networks that fold them.

    Raises:
        ValueError: `num_frames` below 1.

    Example:
        >>> from saccade.nn.video_resnet import ResidualBlock
        >>> block = ResidualBlock(8, 8, shift=8)
        >>> OnClips(block)(torch.randn(2, 8, 4, 7, 7)).shape
        torch.Size([2, 8, 4, 7, 7])
        >>> OnClips(block, num_frames=4)(torch.randn(2 * 4, 8, 7, 7)).shape
        torch.Size([8, 8, 7, 7])
    """

    def __init__(self, block: nn.Module, num_frames: int | None = None) -> None:
        super().__init__()
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"num_frames has to be at least 1, not {num_frames}")
        self.block, self.num_frames = block, num_frames

    def forward(self, x: Tensor) -> Any:
        """Run the block.

        Args:
            x: Features (b, c, t, h, w), or folded frames (b*t, c, h, w).

        Returns:
            Features of the same rank.

        Raises:
            ValueError: Another rank; folded frames without `num_frames`, or no multiple of it.
        """
        if x.ndim == 5:
            y: Tensor = self.block(x.transpose(1, 2).flatten(0, 1), x.shape[2])
            return y.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        if x.ndim != 4:
            raise ValueError(f"features have to be (b, c, t, h, w) or folded (b*t, c, h, w), not {tuple(x.shape)}")
        if self.num_frames is None:
            raise ValueError("features (b*t, c, h, w) do not say how many frames make a clip: give num_frames")
        check_clips(x, self.num_frames)
        return self.block(x, self.num_frames)


class OnTokens(nn.Module):
    """Make a block that is called as `block(x, num_frames)` one for the tokens of a video transformer.

    The cells of each frame become a map again; the class token, which has no place, passes by.

    Args:
        block: Called as `block(x, num_frames)` with (b*t, c, h, w); gives the same shape.
        num_frames: Token frames in a clip: its frames over those of a tubelet.
        grid: Rows and columns of cells; square where `None`.

    Raises:
        ValueError: `num_frames` below 1.

    Example:
        >>> from saccade.nn.video_resnet import ResidualBlock
        >>> OnTokens(ResidualBlock(24, 24, shift=8), num_frames=4)(torch.randn(2, 1 + 4 * 9, 24)).shape
        torch.Size([2, 37, 24])
    """

    def __init__(self, block: nn.Module, num_frames: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames has to be at least 1, not {num_frames}")
        self.block, self.num_frames, self.grid = block, num_frames, grid

    def forward(self, x: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: Tokens (b, 1 + t*h*w, c), the class token first, then frame by frame and row by row.

        Returns:
            Tokens of the same shape.

        Raises:
            ValueError: Tokens that are no whole frames of the grid.
        """
        cells = (x.shape[1] - 1) // self.num_frames if x.ndim == 3 else 0
        side = round(cells**0.5)
        height, width = self.grid or (side, side)
        if x.ndim != 3 or x.shape[1] != 1 + self.num_frames * height * width:
            grid = f"{self.grid[0]} x {self.grid[1]}" if self.grid else "square"
            raise ValueError(
                f"tokens have to be (b, 1 + t*h*w, c) with {self.num_frames} frames of a {grid} grid, "
                f"not {tuple(x.shape)}"
            )
        maps = x[:, 1:].unflatten(1, (self.num_frames, height, width)).permute(0, 1, 4, 2, 3).flatten(0, 1)
        y: Tensor = self.block(maps, self.num_frames)
        tokens = y.unflatten(0, (-1, self.num_frames)).permute(0, 1, 3, 4, 2).flatten(1, 3)
        return torch.cat([x[:, :1], tokens], dim=1)
