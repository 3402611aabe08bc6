"""Auto-X3D: a video network for a given compute budget, found block by block (arXiv:2112.04710).

X3D grew its network along one axis at a time, and tried about thirty. Auto-X3D searches all axes at once and anew in
every block: the kernel of the depth-wise convolution (or no block at all), how much it widens, which attention follows,
and how many filters each stage has. That makes 10 to the power of dozens of networks, which share one set of weights;
a probability distribution over them is trained beside the weights, and its mode is the network that is then trained
from scratch. It helps whoever needs a video classifier for a phone, or for any other budget.

1. *Space.* [`X3DSearchSpace`][saccade.action.autox3d.X3DSearchSpace] lists the decisions, knows the exact cost of each
   combination, and turns choices into an [`X3DArchitecture`][saccade.nn.x3d_architecture.X3DArchitecture].
2. *Distribution.* P(A) is a product of softmaxes, one a decision
   ([`CategoricalArchitectureDistribution`][saccade.nn.architectures.CategoricalArchitectureDistribution]); `to_joint`
   unites decisions that depend on each other.
3. *Step.* A few architectures are drawn, and weighted by how well they explain a batch and by what they cost above the
   target: `q = softmax(log p(y | x, A) - beta max(0, cost(A) / target - 1))`. The shared weights follow
   `sum q grad CE(A)` on a training batch, the distribution `sum q grad log P(A)` on a held-out one
   ([`ProbabilisticSearch`][saccade.nn.probabilistic_search.ProbabilisticSearch]). Only one network is in memory at a
   time, and as the distribution settles fewer are drawn.
4. *Fair channels.* Were the first filters shared by all widths, they would be trained most.
   [`fair_channel_masks`][saccade.nn.fair_channels.fair_channel_masks] pairs every width with the one that has the rest,
   so that all filters are trained alike.
5. *Result.* [`AutoX3D`][saccade.action.autox3d.AutoX3D] is the network of an architecture; a search writes it as
   `architecture.json`, which trains by a recipe like any network.

How it is used: `saccade fit --config action/autox3d-search-s-kinetics`, then `saccade fit --config
action/autox3d-s-kinetics`; or [`search_x3d`][saccade.action.x3d_search.search_x3d] in a program of your own. Of the
paper the abstract and the supplement could be read: values of the space and of the penalty are choices, and say so.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from saccade.checkpoints import load_strict, read_state, write_state
from saccade.nn.architectures import ArchitectureSpace, CostTables
from saccade.nn.x3d import X3D
from saccade.nn.x3d_architecture import (
    NONE,
    BlockPlan,
    X3DArchitecture,
    block_cost,
    halved,
    head_cost,
    stem_cost,
)
from saccade.nn.x3d_blocks import ATTENTION

SKIP = "skip"
"""The choice of no block at all."""


@dataclass(frozen=True)
class BlockChoice:
    """What was chosen for a block: the name of its kernel, its expansion, its attention, and what that makes.

    Args:
        kernel: Such as `3x3x3`.
        expansion: Inner channels as a multiple of the stage's filters.
        plan: The block.
    """

    kernel: str
    expansion: float
    plan: BlockPlan


@dataclass(frozen=True)
class X3DSearchSpace:
    """What the search may choose in a network of the X3D kind.

    Decisions are named `1.0.kernel`, `1.0.expansion`, `1.0.attention` for the first block of the first stage, and
    `1.width` for the filters of that stage. What has one choice alone is no decision. Resolution, frames, stem and head
    are fixed.

    Args:
        frames: Frames of a clip.
        crop: Side of a frame in pixels.
        stride: Frames of the video from one frame of the clip to the next.
        num_classes: Classes; they count in the cost.
        kernels: Of depth-wise convolutions, such as `3x3x3`: time, height, width, odd.
        expansions: Inner channels as multiples of the stage's filters.
        attentions: Of `none`, `se` (squeeze-excitation) and `gc` (global context).
        skip: Whether blocks that keep the shape may be left out, so that the depth is searched too.
        candidates: How many widths each stage chooses from: odd, or 1 for a fixed one.
        groups: Filters of a group; candidate `k` of a stage has `k` groups.
        depths: Blocks of each stage.
        stem: Channels of the stem.
        head: Channels that the head widens to.
        features: Channels before the classifier.
        in_channels: Channels of a frame.

    Raises:
        ValueError: Lists of another length, an even number of widths, unknown kernels or attention.

    Note:
        Source: arXiv:2112.04710 says which variables are searched; the values are chosen so that X3D-S is in the space,
        in the middle of its widths.

    Example:
        >>> space = X3DSearchSpace()
        >>> len(space.space), f"{space.space.count:.0e}"
        (82, '7e+40')
        >>> cost = space.decode(space.x3d()).cost()
        >>> round(cost.multiply_adds / 1e9, 2), round(cost.parameters / 1e6, 2)
        (1.96, 3.79)
    """

    frames: int = 13
    crop: int = 160
    stride: int = 6
    num_classes: int = 400
    kernels: Sequence[str] = ("1x3x3", "3x3x3", "5x3x3", "3x5x5")
    expansions: Sequence[float] = (1.5, 2.25, 3.0)
    attentions: Sequence[str] = (NONE, "se")
    skip: bool = True
    candidates: Sequence[int] = (5, 5, 5, 5)
    groups: Sequence[int] = (8, 16, 32, 64)
    depths: Sequence[int] = (3, 5, 11, 7)
    stem: int = 24
    head: int = 432
    features: int = 2048
    in_channels: int = 3

    def __post_init__(self) -> None:
        stages = {len(self.candidates), len(self.groups), len(self.depths)}
        if len(stages) != 1 or stages == {0}:
            raise ValueError(
                "candidates, groups and depths have an entry for each stage, not "
                f"{len(self.candidates)}, {len(self.groups)} and {len(self.depths)}"
            )
        if any(n < 1 or n % 2 == 0 for n in self.candidates) or min(*self.groups, *self.depths) < 1:
            raise ValueError(
                f"every stage chooses from an odd number of widths, and has groups and depths of at least 1, not "
                f"{list(self.candidates)}, {list(self.groups)} and {list(self.depths)}"
            )
        if not self.kernels or not self.expansions or not self.attentions:
            raise ValueError("kernels, expansions and attentions have at least one choice each")
        if min(self.expansions) <= 0:
            raise ValueError(f"expansions have to be positive, not {list(self.expansions)}")
        unknown = [name for name in self.attentions if name not in (NONE, *ATTENTION)]
        if unknown:
            raise ValueError(f"attention is one of none, {', '.join(ATTENTION)}, not {unknown[0]!r}")
        for kernel in self.kernels:
            kernel_sides(kernel)
        self._architecture({})  # frames, crop and channels are checked there

    @cached_property
    def space(self) -> ArchitectureSpace:
        """The decisions."""
        decisions: dict[str, Sequence[Any]] = {}
        for stage, depth in enumerate(self.depths, start=1):
            decisions[f"{stage}.width"] = self.widths(stage)
            for block in range(depth):
                decisions[f"{stage}.{block}.kernel"] = self._kernels(block)
                decisions[f"{stage}.{block}.expansion"] = self.expansions
                decisions[f"{stage}.{block}.attention"] = self.attentions
        return ArchitectureSpace({name: choices for name, choices in decisions.items() if len(choices) > 1})

    def widths(self, stage: int) -> tuple[int, ...]:
        """Filters that a stage, counted from 1, may have."""
        group = self.groups[stage - 1]
        return tuple(group * k for k in range(1, self.candidates[stage - 1] + 1))

    def decode(self, architecture: Int[Tensor, " l"]) -> X3DArchitecture:
        """The architecture of a row of indices.

        Args:
            architecture: Indices of choices.

        Returns:
            The architecture; blocks that are skipped are not in it.
        """
        return self._architecture(self.space.decode(architecture))

    def choices(self, architecture: Int[Tensor, " l"]) -> list[tuple[int, list[BlockChoice | None]]]:
        """Filters and blocks of each stage; `None` for a block that is skipped.

        Args:
            architecture: Indices of choices.

        Returns:
            By stage.
        """
        return self._stages(self.space.decode(architecture))

    def x3d(self) -> Int[Tensor, " l"]:
        """The architecture of X3D's making in this space.

        Kernels of 3x3x3, squeeze-excitation in every second block, the widths and the expansion in the middle.

        Returns:
            A row of indices.

        Raises:
            ValueError: The space has no 3x3x3 kernel, or not both `none` and `se`.
        """
        wanted: dict[str, Any] = {}
        for name, choices in self.space.decisions.items():
            kind = name.rpartition(".")[2]
            if kind in ("width", "expansion"):
                wanted[name] = sorted(choices, key=float)[len(choices) // 2]  # type: ignore[arg-type]
            elif kind == "kernel":
                wanted[name] = "3x3x3"
            else:
                wanted[name] = NONE if int(name.split(".")[1]) % 2 else "se"
        return self.space.encode(wanted)

    def cost(self, of: Literal["multiply_adds", "parameters"] = "multiply_adds") -> CostTables:
        """The exact cost of every architecture of the space, as tables over the decisions that it depends on.

        Args:
            of: Multiply-adds of a clip, or parameters.

        Returns:
            Tables whose sum is what the derived network costs.
        """
        tables: dict[tuple[str, ...], Tensor] = {}
        side = halved(self.crop)
        constant = getattr(stem_cost(self.in_channels, self.stem, self.frames, side), of)
        for stage, depth in enumerate(self.depths, start=1):
            width, before = f"{stage}.width", f"{stage - 1}.width"
            widths, befores = self.widths(stage), self.widths(stage - 1) if stage > 1 else (self.stem,)
            for block in range(depth):
                at = f"{stage}.{block}"
                inputs = [(before, befores)] if block == 0 else []
                axes: list[tuple[str, Sequence[Any]]] = [
                    *inputs,
                    (width, widths),
                    (f"{at}.kernel", self._kernels(block)),
                    (f"{at}.expansion", self.expansions),
                    (f"{at}.attention", self.attentions),
                ]
                values = []
                for *entering, out, kernel, expansion, attention in itertools.product(*(axis for _, axis in axes)):
                    made = self._choice(out, kernel, expansion, attention)
                    channels, stride = (entering[0], 2) if entering else (out, 1)
                    spent = block_cost(channels, made.plan, stride, self.frames, side) if made else None
                    values.append(getattr(spent, of) if spent else 0)
                constant += _add(tables, axes, values)
                side = side if block else halved(side)
        last = [
            getattr(head_cost(width, self.head, self.features, self.num_classes, self.frames, side), of)
            for width in self.widths(len(self.depths))
        ]
        constant += _add(tables, [(f"{len(self.depths)}.width", self.widths(len(self.depths)))], last)
        return CostTables(self.space, tables, constant)

    def _kernels(self, block: int) -> Sequence[str]:
        return (*self.kernels, SKIP) if self.skip and block else tuple(self.kernels)

    def _choice(self, out: int, kernel: str, expansion: float, attention: str) -> BlockChoice | None:
        if kernel == SKIP:
            return None
        plan = BlockPlan(out, max(1, int(expansion * out)), kernel_sides(kernel), attention)
        return BlockChoice(kernel, expansion, plan)

    def _stages(self, chosen: Mapping[str, Any]) -> list[tuple[int, list[BlockChoice | None]]]:
        stages = []
        for stage, depth in enumerate(self.depths, start=1):
            out = chosen.get(f"{stage}.width", self.widths(stage)[0])
            blocks = []
            for block in range(depth):
                at = f"{stage}.{block}"
                kernel = chosen.get(f"{at}.kernel", self.kernels[0])
                expansion = chosen.get(f"{at}.expansion", self.expansions[0])
                attention = chosen.get(f"{at}.attention", self.attentions[0])
                blocks.append(self._choice(out, kernel, expansion, attention))
            stages.append((out, blocks))
        return stages

    def _architecture(self, chosen: Mapping[str, Any]) -> X3DArchitecture:
        stages = [[block.plan for block in blocks if block] for _, blocks in self._stages(chosen)]
        return X3DArchitecture(
            self.frames, self.crop, self.stem, stages, self.head, self.features, self.in_channels, self.stride
        )


def kernel_sides(kernel: str) -> tuple[int, int, int]:
    """The sides of a kernel by its name.

    Args:
        kernel: Such as `5x3x3`: time, height, width.

    Returns:
        Three odd sides.

    Raises:
        ValueError: Not of that form.

    Example:
        >>> kernel_sides("5x3x3")
        (5, 3, 3)
    """
    sides = kernel.split("x")
    if len(sides) != 3 or not all(side.isdigit() and int(side) % 2 for side in sides):
        raise ValueError(
            f"a kernel is named by three odd sides such as 3x3x3, of time, height and width, not {kernel!r}"
        )
    time, height, width = map(int, sides)
    return time, height, width


def multiply_adds(network: X3D | X3DArchitecture, frames: int | None = None, crop: int | None = None) -> int:
    """Multiply-adds of a clip: convolutions, attention and classifier, without norms and activations.

    Args:
        network: An X3D of any kind, or its architecture (then with 400 classes).
        frames: Frames of the clip, where they are not the network's.
        crop: Side of the clip in pixels, where it is not the network's.

    Returns:
        The number; 1.96 billion for X3D-S at 160 pixels, 2.72 at the 182 of tables that test with larger crops.

    Example:
        >>> from saccade.nn.x3d import x3d_s
        >>> [round(multiply_adds(x3d_s(), crop=crop) / 1e9, 2) for crop in (160, 182)]
        [1.96, 2.72]
    """
    if isinstance(network, X3D):
        return network.architecture.cost(network.fc.out_features, frames, crop).multiply_adds
    return network.cost(frames=frames, crop=crop).multiply_adds


class AutoX3D(X3D):
    """The network of an architecture, with weights of its own.

    Args:
        architecture: The architecture, or the JSON or YAML file that holds it.
        num_classes: Classes.
        dropout: Before the classifier.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It holds no architecture.

    Note:
        Source: arXiv:2112.04710. Starts as [`X3D`][saccade.nn.x3d.X3D] does.

    Example:
        >>> space = X3DSearchSpace(4, 64, groups=(1, 2, 3, 4), depths=(1, 2, 1, 1), stem=4, head=8, features=16)
        >>> model = AutoX3D(space.decode(space.x3d()), num_classes=5)
        >>> model(torch.randn(2, 3, 4, 64, 64)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self, architecture: X3DArchitecture | str | Path, num_classes: int = 400, dropout: float = 0.5
    ) -> None:
        nn.Module.__init__(self)
        if not isinstance(architecture, X3DArchitecture):
            architecture = X3DArchitecture.load(architecture)
        if num_classes < 1:
            raise ValueError(f"num_classes has to be at least 1, not {num_classes}")
        self._build(architecture, num_classes, dropout)

    def save(self, folder: str | Path) -> None:
        """Write `architecture.json` and `weights.safetensors`.

        Args:
            folder: Is made where it is not there.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.architecture.save(folder / "architecture.json")
        write_state(self.state_dict(), folder / "weights.safetensors")

    @classmethod
    def load(cls, folder: str | Path, dropout: float = 0.5) -> AutoX3D:
        """Read what `save` wrote.

        Args:
            folder: With both files.
            dropout: Before the classifier.

        Returns:
            The network, with the weights that it had.

        Raises:
            FileNotFoundError: One of the files is not there.
            ValueError: One is malformed, or the weights do not fit the architecture.
        """
        folder = Path(folder)
        architecture = X3DArchitecture.load(folder / "architecture.json")
        state = read_state(folder / "weights.safetensors")
        if "fc.bias" not in state:
            raise ValueError(f"{folder / 'weights.safetensors'} has no classifier `fc`")
        model = cls(architecture, len(state["fc.bias"]), dropout)
        load_strict(model, state)
        return model


def _add(
    tables: dict[tuple[str, ...], Tensor], axes: Sequence[tuple[str, Sequence[Any]]], values: Sequence[int]
) -> int:
    """Add a table over the axes that have several choices; what has none is a constant, and returned."""
    kept = [(name, len(axis)) for name, axis in axes if len(axis) > 1]
    if not kept:
        return values[0]
    table = torch.tensor(values, dtype=torch.float64).reshape([size for _, size in kept])
    names = tuple(name for name, _ in kept)
    tables[names] = tables[names] + table if names in tables else table
    return 0
