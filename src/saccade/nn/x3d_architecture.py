"""What an X3D-like network is made of, as data: block by block, with its exact cost, in a file of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saccade.nn.x3d_blocks import ATTENTION, round_width

NONE = "none"


@dataclass(frozen=True)
class BlockPlan:
    """One block: a 1x1x1 convolution to `inner` channels, a depth-wise one, attention, a 1x1x1 one to `out` channels.

    Args:
        out: Channels of the output.
        inner: Channels of the depth-wise convolution.
        kernel: Of the depth-wise convolution, in time, height and width; odd.
        attention: `none`, `se` or `gc`.

    Raises:
        ValueError: Channels below 1, a kernel that is not three odd sides, an unknown attention.
    """

    out: int
    inner: int
    kernel: tuple[int, int, int] = (3, 3, 3)
    attention: str = NONE

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", tuple(self.kernel))
        if len(self.kernel) != 3 or any(side < 1 or side % 2 == 0 for side in self.kernel):
            raise ValueError(f"kernel has to be three odd sides, of time, height and width, not {self.kernel}")
        if min(self.out, self.inner) < 1:
            raise ValueError(f"channels have to be at least 1, not {self.out} and {self.inner}")
        if self.attention not in (NONE, *ATTENTION):
            raise ValueError(f"attention is one of none, {', '.join(ATTENTION)}, not {self.attention!r}")


@dataclass(frozen=True)
class Cost:
    """What something costs: multiply-adds of a clip, and parameters."""

    multiply_adds: int = 0
    parameters: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.multiply_adds + other.multiply_adds, self.parameters + other.parameters)


@dataclass(frozen=True)
class X3DArchitecture:
    """A network of the X3D kind.

    Every stage halves height and width in its first block; frames are never merged before the head.

    Args:
        frames: Frames of a clip.
        crop: Side of a frame in pixels; at least 2 to the power of the stages plus one, as so often it is halved.
        stem: Channels of the stem.
        stages: The blocks of each stage.
        head: Channels that the head widens to before it averages.
        features: Channels before the classifier.
        in_channels: Channels of a frame.
        stride: Frames of the video from one frame of the clip to the next.
        norm_embed: Batch norm between the head's last convolution and its ReLU.

    Raises:
        ValueError: A stage without a block or with several widths, sizes below 1, a crop that is too small.

    Example:
        >>> tiny = X3DArchitecture(4, 32, 8, [[BlockPlan(8, 18)], [BlockPlan(16, 36, attention="se")]], 36, 64)
        >>> tiny.cost(num_classes=5)
        Cost(multiply_adds=808320, parameters=7283)
    """

    frames: int
    crop: int
    stem: int
    stages: Sequence[Sequence[BlockPlan]]
    head: int
    features: int = 2048
    in_channels: int = 3
    stride: int = 1
    norm_embed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(tuple(stage) for stage in self.stages))
        if not self.stages or not all(self.stages):
            raise ValueError("an architecture has at least one stage, and every stage at least one block")
        if any(len({block.out for block in stage}) > 1 for stage in self.stages):
            raise ValueError("all blocks of a stage have the same width")
        numbers = (self.frames, self.stem, self.head, self.features, self.in_channels, self.stride)
        if min(numbers) < 1:
            raise ValueError(f"frames, channels and stride have to be at least 1, not {numbers}")
        least = 2 ** (len(self.stages) + 1)
        if self.crop < least:
            raise ValueError(f"crop has to be at least {least}, as it is halved so often, not {self.crop}")

    def cost(self, num_classes: int = 400, frames: int | None = None, crop: int | None = None) -> Cost:
        """Exact multiply-adds and parameters.

        Norms, activations and pooling are parameters where they have some, but no multiply-adds.

        Args:
            num_classes: Classes.
            frames: Frames of the clip, where they are not the architecture's.
            crop: Side of the clip in pixels, where it is not the architecture's.

        Returns:
            Both.
        """
        frames, side = frames or self.frames, halved(crop or self.crop)
        total = stem_cost(self.in_channels, self.stem, frames, side)
        channels = self.stem
        for stage in self.stages:
            for i, block in enumerate(stage):
                stride = 1 if i else 2
                total += block_cost(channels, block, stride, frames, side)
                side, channels = (side if i else halved(side)), block.out
        return total + head_cost(channels, self.head, self.features, num_classes, frames, side, self.norm_embed)

    def as_dict(self) -> dict[str, Any]:
        """As plain containers, for JSON and YAML."""
        content = asdict(self)
        content["stages"] = [
            [{**asdict(block), "kernel": list(block.kernel)} for block in stage] for stage in self.stages
        ]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> X3DArchitecture:
        """From what `as_dict` gives.

        Args:
            content: All keys of the class, those with defaults may be missing.

        Returns:
            The architecture.

        Raises:
            ValueError: Unknown or missing keys, or values that make no architecture.
        """
        try:
            stages = [
                [BlockPlan(**{**block, "kernel": tuple(block.get("kernel", (3, 3, 3)))}) for block in stage]
                for stage in content["stages"]
            ]
            return cls(**{**content, "stages": stages})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an architecture: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write it as JSON, or as YAML where the file is named so.

        Args:
            path: The file; its folder must exist.
        """
        path = Path(path)
        if path.suffix in (".yaml", ".yml"):
            import yaml

            path.write_text(yaml.safe_dump(self.as_dict(), sort_keys=False), encoding="utf-8")
        else:
            path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> X3DArchitecture:
        """Read a file that `save` wrote.

        Args:
            path: JSON or YAML.

        Returns:
            The architecture.

        Raises:
            FileNotFoundError: No such file.
            ValueError: It holds no architecture; the message names the file.
        """
        import yaml

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no architecture at {path}; a search writes one, as JSON or YAML")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is neither JSON nor YAML: {' '.join(str(error).split())[:160]}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds no architecture but a {type(content).__name__}")
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def halved(side: int) -> int:
    """The side of a map after a convolution of stride 2."""
    return (side + 1) // 2


def stem_cost(in_channels: int, channels: int, frames: int, side: int) -> Cost:
    """Of the stem, whose output has that side."""
    weights = 9 * in_channels * channels + 5 * channels
    return Cost(frames * side * side * weights, weights + 2 * channels)


def block_cost(in_channels: int, block: BlockPlan, stride: int, frames: int, side: int) -> Cost:
    """Of one block.

    Args:
        in_channels: Of its input.
        block: The block.
        stride: In space.
        frames: Frames of its input.
        side: Of its input, in cells.

    Returns:
        Multiply-adds and parameters.
    """
    entering = frames * side * side
    leaving = frames * (halved(side) ** 2 if stride == 2 else side * side)
    taps = block.kernel[0] * block.kernel[1] * block.kernel[2]
    inner, out = block.inner, block.out
    total = Cost(entering * in_channels * inner, in_channels * inner + 2 * inner)
    total += Cost(leaving * inner * taps, inner * taps + 2 * inner)
    total += Cost(leaving * inner * out, inner * out + 2 * out)
    if block.attention != NONE:
        hidden = round_width(inner / 16)
        total += Cost(2 * inner * hidden, 2 * inner * hidden + hidden + inner)
        if block.attention == "gc":
            total += Cost(2 * leaving * inner, inner)
    if stride != 1 or in_channels != out:
        total += Cost(leaving * in_channels * out, in_channels * out + 2 * out)
    return total


def head_cost(
    channels: int, head: int, features: int, num_classes: int, frames: int, side: int, norm_embed: bool = False
) -> Cost:
    """Of the head and the classifier, over a map of that side."""
    total = Cost(frames * side * side * channels * head, channels * head + 2 * head)
    total += Cost(head * features, head * features + (2 * features if norm_embed else 0))
    return total + Cost(features * num_classes, features * num_classes + num_classes)


def plain_stages(widths: Sequence[int], depths: Sequence[int], expansion: float) -> list[list[BlockPlan]]:
    """Stages as X3D has them: 3x3x3 kernels, and squeeze-excitation in every second block from the first.

    Args:
        widths: Channels of each stage.
        depths: Blocks of each stage.
        expansion: Inner channels as a multiple of the output's.

    Returns:
        The stages.
    """
    return [
        [BlockPlan(width, int(expansion * width), attention=NONE if i % 2 else "se") for i in range(depth)]
        for width, depth in zip(widths, depths, strict=True)
    ]
