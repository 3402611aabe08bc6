"""A vision transformer on video: tubelets, positions in space and time, and a choice of attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.input_spec import InputSpec
from saccade.nn.space_time_attention import (
    APPROXIMATIONS,
    DividedAttention,
    JointSpaceTimeAttention,
    TrajectoryAttention,
)

ATTENTIONS = ("trajectory", "joint", "divided", *APPROXIMATIONS)

Attention = Literal["trajectory", "joint", "divided", "orthoformer", "nystrom", "performer"]


class DropPath(nn.Module):
    """Leave out the residual branch of whole samples in training (stochastic depth).

    Args:
        rate: Share of the samples; the others are scaled up.

    Raises:
        ValueError: A rate outside [0, 1).

    Example:
        >>> DropPath(0.5).eval()(torch.ones(2, 3)).sum()
        tensor(6.)
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of DropPath has to be in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Args: `x`, the branch. Returns: it, or zeros."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class SpaceTimeBlock(nn.Module):
    """A pre-norm transformer block around an attention that knows frames.

    Args:
        dim: Width.
        attention: Called as `attention(x, num_frames)`.
        mlp_ratio: Hidden width of the MLP over `dim`.
        drop_path: Rate of stochastic depth.

    Example:
        >>> SpaceTimeBlock(24, TrajectoryAttention(24, num_heads=3))(torch.randn(2, 37, 24), num_frames=4).shape
        torch.Size([2, 37, 24])
    """

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(dim, round(dim * mlp_ratio)))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(round(dim * mlp_ratio), dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n d"], num_frames: int) -> Float[Tensor, "b n d"]:
        """Args: `x`, class token and frames; `num_frames`, frames in a clip. Returns: the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), num_frames))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DividedSpaceTimeBlock(SpaceTimeBlock):
    """Attention over time, then over space, then the MLP.

    Args:
        dim: Width.
        num_heads: Heads of both attentions.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop: Share of the attention that is dropped in training.
        proj_drop: Dropout of the attentions' outputs.
        mlp_ratio: Hidden width of the MLP over `dim`.
        drop_path: Rate of stochastic depth, for space and MLP; the branch of time is never left out.

    Note:
        Source: the baseline of arXiv:2106.05392's code, after arXiv:2102.05095.

    Example:
        >>> DividedSpaceTimeBlock(24, num_heads=3)(torch.randn(2, 37, 24), num_frames=4).shape
        torch.Size([2, 37, 24])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 12,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        options = (num_heads, qkv_bias, attn_drop, proj_drop)
        super().__init__(dim, DividedAttention(dim, "space", *options), mlp_ratio, drop_path)
        self.norm3 = nn.LayerNorm(dim, eps=1e-6)
        self.timeattn = DividedAttention(dim, "time", *options)
        nn.init.zeros_(self.timeattn.proj.bias)

    def forward(self, x: Float[Tensor, "b n d"], num_frames: int) -> Float[Tensor, "b n d"]:
        """Args: `x`, class token and frames; `num_frames`, frames in a clip. Returns: the same shape."""
        return super().forward(x + self.timeattn(self.norm3(x), num_frames), num_frames)


class VideoTransformer(nn.Module):
    """A vision transformer on the tubelets of a clip.

    Args:
        image_size: Side of the clips in pixels that the stored table of positions is made for; others are accepted,
            and the table is resized to them.
        patch_size: Side of a tubelet in pixels.
        tubelet: Frames of a tubelet.
        frames: Frames of a clip.
        dim: Width of a token.
        depth: Blocks.
        heads: Heads of each attention.
        num_classes: Classes; or a dict of several classifiers and their classes, such as verb and noun.
        attention: `trajectory`, `joint`, `divided`, or trajectory attention approximated by `orthoformer`, `nystrom`
            or `performer`.
        pos_embed: `separate` tables for space and time, or one `joint` table, which takes clips of `image_size` alone.
        value_projection: As the paper has it; see
            [`TrajectoryAttention`][saccade.nn.space_time_attention.TrajectoryAttention].
        num_landmarks: Of the approximations.
        pre_logits: A further layer with tanh before the classifier.
        mlp_ratio: Hidden width of the MLPs over `dim`.
        qkv_bias: Whether queries, keys and values have a bias.
        drop_path: Rate of stochastic depth in the last block; it grows from 0.
        drop: Dropout of the embedded tokens and of the attentions' outputs.
        attn_drop: Share of the attention that is dropped in training.
        head_drop: Dropout before the classifier.
        in_channels: Channels of a frame.
        input_spec: What the model is meant to be fed; by default sizes as above, mean and deviation 0.5.

    Raises:
        ValueError: Sizes that do not divide, an unknown attention or kind of positions, no classes.

    Note:
        Source: arXiv:2106.05392, sections 3 and 4.1; sizes of ViT, arXiv:2010.11929.

    Example:
        >>> model = VideoTransformer(32, 8, frames=4, dim=24, depth=2, heads=3, num_classes=5)
        >>> model(torch.randn(2, 3, 4, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        tubelet: int = 2,
        frames: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        num_classes: int | dict[str, int] = 400,
        attention: Attention = "trajectory",
        pos_embed: Literal["separate", "joint"] = "separate",
        value_projection: bool = True,
        num_landmarks: int = 128,
        pre_logits: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.2,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        head_drop: float = 0.0,
        in_channels: int = 3,
        input_spec: InputSpec | None = None,
    ) -> None:
        super().__init__()
        if patch_size < 1 or image_size < patch_size or image_size % patch_size:
            raise ValueError(f"image_size has to be a multiple of patch_size, not {image_size} with {patch_size}")
        if tubelet < 1 or frames < tubelet or frames % tubelet:
            raise ValueError(f"frames has to be a multiple of tubelet, not {frames} with {tubelet}")
        if depth < 1:
            raise ValueError(f"depth has to be at least 1, not {depth}")
        if attention not in ATTENTIONS:
            raise ValueError(f"attention is one of {', '.join(ATTENTIONS)}, not {attention!r}")
        if pos_embed not in ("separate", "joint"):
            raise ValueError(f"pos_embed is 'separate' or 'joint', not {pos_embed!r}")
        classes = num_classes if isinstance(num_classes, dict) else {"": num_classes}
        if not classes or min(classes.values()) < 1:
            raise ValueError(f"num_classes has to be at least 1, not {num_classes}")
        self.image_size, self.patch_size, self.tubelet, self.frames = image_size, patch_size, tubelet, frames
        self.attention = attention
        grey = in_channels == 1
        self.input_spec = input_spec or InputSpec(
            image_size, frames, 4, (0.5,) * in_channels, (0.5,) * in_channels, "L" if grey else "RGB"
        )
        cells, times = (image_size // patch_size) ** 2, frames // tubelet
        size = (tubelet, patch_size, patch_size)
        self.patch_embed = nn.Conv3d(in_channels, dim, size, stride=size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if pos_embed == "joint":
            self.st_embed = nn.Parameter(torch.zeros(1, 1 + times * cells, dim))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + cells, dim))
            self.temp_embed = nn.Parameter(torch.zeros(1, times, dim))
        self.drop = nn.Dropout(drop)
        blocks: list[nn.Module] = []
        for rate in (drop_path * i / max(depth - 1, 1) for i in range(depth)):
            options = (heads, qkv_bias, attn_drop, drop)
            if attention == "divided":
                blocks.append(DividedSpaceTimeBlock(dim, *options, mlp_ratio, rate))
                continue
            layer: nn.Module
            if attention == "joint":
                layer = JointSpaceTimeAttention(dim, *options)
            else:
                approximation = None if attention == "trajectory" else attention
                layer = TrajectoryAttention(dim, *options, value_projection, approximation, num_landmarks)
            blocks.append(SpaceTimeBlock(dim, layer, mlp_ratio, rate))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pre_logits = nn.Linear(dim, dim) if pre_logits else None
        self.head_drop = nn.Dropout(head_drop)
        self.head: nn.Linear | nn.ModuleDict = (
            nn.ModuleDict({name: nn.Linear(dim, count) for name, count in num_classes.items()})
            if isinstance(num_classes, dict)
            else nn.Linear(dim, num_classes)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for table in (self.cls_token, self.st_embed if pos_embed == "joint" else self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k"] | dict[str, Float[Tensor, "b k"]]:
        """Classify clips.

        Args:
            video: Normalised clips.

        Returns:
            Logits, or with several classifiers a dict of them; never probabilities.

        Raises:
            TypeError: uint8 or other integer input.
            ValueError: Another rank, number of channels or of frames, or sides that are no multiple of the patch.
        """
        features = self.head_drop(self.features(video))
        if isinstance(self.head, nn.ModuleDict):
            return {name: head(features) for name, head in self.head.items()}
        return self.head(features)

    def features(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        """What the classifier sees of a clip: the class token, normalised and through `pre_logits`.

        Args:
            video: Normalised clips.

        Returns:
            A vector a clip.
        """
        first = self.norm(self.tokens(video)[:, 0])
        return first if self.pre_logits is None else torch.tanh(self.pre_logits(first))

    def tokens(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """All tokens after the last block, the class token first, then frame by frame.

        Args:
            video: Normalised clips.

        Returns:
            Tokens before the last normalisation.
        """
        x = self.embed(video)
        for block in self.blocks:
            x = block(x, video.shape[2] // self.tubelet)
        return x

    def embed(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Tubelets with their positions, and the class token.

        Args:
            video: Normalised clips.

        Returns:
            Tokens before the first block.
        """
        self._check(video)
        x = self.patch_embed(video)
        grid = x.shape[-2:]
        x = x.flatten(3).permute(0, 2, 3, 1)  # b t p d
        first = self.cls_token.expand(len(x), -1, -1)
        if hasattr(self, "st_embed"):
            return self.drop(torch.cat([first, x.flatten(1, 2)], dim=1) + self.st_embed)
        space = resize_positions(self.pos_embed[:, 1:], (int(grid[0]), int(grid[1])))
        x = x + space.unsqueeze(1) + self.temp_embed.unsqueeze(2)
        return self.drop(torch.cat([first + self.pos_embed[:, :1], x.flatten(1, 2)], dim=1))

    def load_image_vit(self, state: Mapping[str, Tensor]) -> None:
        """Start from a vision transformer trained on images, in timm's layout.

        The patch embedding goes into the middle frame of the tubelet and the other frames start at zero; the table of
        positions is resized where the grid differs, and that of time starts at zero. What an image model lacks (the
        projections of the temporal attention, the attention over time of `divided`, the classifiers) stays as it is.

        Args:
            state: Its state dict; a classifier and `pre_logits` are left out.

        Raises:
            ValueError: A key that is missing, unknown, or of another shape.

        Note:
            Source: arXiv:2106.05392, section 4.1 ("centre-frame" inflation as in the authors' code).
        """
        given = {k: v for k, v in state.items() if not k.startswith(("head", "pre_logits", "fc_norm"))}
        own = self.state_dict()
        without = ("head.", "pre_logits.", "patch_embed.", "pos_embed", "temp_embed", "st_embed")
        extra = (".proj_q.", ".proj_kv.", ".timeattn.", ".norm3.", ".projection")
        wanted = [k for k in own if not k.startswith(without) and not any(part in k for part in extra)]
        embedding = {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"}
        odd = sorted((set(wanted) | embedding) ^ set(given))
        if odd:
            raise ValueError(
                f"the state dict is not one of this image transformer: {', '.join(odd[:5])} missing or extra"
            )
        kernel, positions = given["patch_embed.proj.weight"], given["pos_embed"]
        weight = torch.zeros_like(own["patch_embed.weight"])
        shaped = [k for k in wanted if own[k].shape != given[k].shape]
        if kernel.shape != weight[:, :, 0].shape:
            shaped.append("patch_embed.proj.weight")
        side = round((positions.shape[1] - 1) ** 0.5)
        if positions.shape[2] != weight.shape[0] or side * side != positions.shape[1] - 1:
            shaped.append("pos_embed")
        if shaped:
            raise ValueError(
                f"the state dict is not one of this image transformer: {', '.join(shaped[:5])} shaped otherwise"
            )
        weight[:, :, self.tubelet // 2] = kernel
        cells = self.image_size // self.patch_size
        space = resize_positions(positions[:, 1:], (cells, cells))
        first = positions[:, :1]
        loaded = {k: given[k] for k in wanted} | {
            "patch_embed.weight": weight,
            "patch_embed.bias": given["patch_embed.proj.bias"],
        }
        if hasattr(self, "st_embed"):
            times = self.frames // self.tubelet
            loaded["st_embed"] = torch.cat([first, space.repeat(1, times, 1)], dim=1)
        else:
            loaded["pos_embed"] = torch.cat([first, space], dim=1)
            loaded["temp_embed"] = torch.zeros_like(own["temp_embed"])
        self.load_state_dict(loaded, strict=False)

    def _check(self, video: Tensor) -> None:
        self.input_spec.check_clips(video, self.patch_embed.in_channels)
        _, _, frames, height, width = video.shape
        if frames % self.tubelet or frames != self.frames:
            raise ValueError(f"a clip has to have {self.frames} frames, tubelets of {self.tubelet}, not {frames}")
        if height % self.patch_size or width % self.patch_size or min(height, width) == 0:
            raise ValueError(f"height and width have to be multiples of {self.patch_size}, not {height} x {width}")
        if hasattr(self, "st_embed") and (height, width) != (self.image_size, self.image_size):
            raise ValueError(f"with joint positions clips have {self.image_size} pixels a side, not {height} x {width}")


def resize_positions(table: Float[Tensor, "1 p d"], grid: tuple[int, int]) -> Float[Tensor, "1 p2 d"]:
    """Resize a square table of positions to another grid, bicubically.

    Args:
        table: Positions row by row, without a class token.
        grid: Rows and columns wanted.

    Returns:
        Positions row by row.

    Example:
        >>> resize_positions(torch.ones(1, 9, 2), (5, 4)).shape
        torch.Size([1, 20, 2])
    """
    side = round(table.shape[1] ** 0.5)
    if grid == (side, side):
        return table
    square = table.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return F.interpolate(square, size=grid, mode="bicubic", align_corners=False).flatten(2).mT
