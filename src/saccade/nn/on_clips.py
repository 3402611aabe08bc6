"""Blocks on folded frames, in networks on clips and the other way round."""

from __future__ import annotations

from typing import Any

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
        >>> import torch
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
