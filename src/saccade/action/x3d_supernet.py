"""All networks of a search space in one set of weights, of which a sample uses slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.action.autox3d import AutoX3D, BlockChoice, X3DSearchSpace, kernel_sides
from saccade.checkpoints import load_strict
from saccade.nn.clip_convolutions import depthwise_conv3d, pointwise_conv3d
from saccade.nn.fair_channels import fair_channel_slices
from saccade.nn.x3d_blocks import ATTENTION, GlobalContext, X3DHead, X3DStem, round_width


class SharedNorms(nn.Module):
    """Batch norms by the batch's own statistics: weights and biases for each (kernel, expansion), all of full width."""

    def __init__(self, channels: int, pairs: int, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((pairs, channels), start))
        self.bias = nn.Parameter(torch.zeros(pairs, channels))

    def forward(self, x: Float[Tensor, "b c t h w"], pair: int, channels: slice) -> Float[Tensor, "b c t h w"]:
        """Normalise by the statistics of the batch."""
        return F.batch_norm(x, None, None, self.weight[pair, channels], self.bias[pair, channels], training=True)


class SharedAttention(nn.Module):
    """An attention block of full width, of which a sample uses the first channels."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.whole = ATTENTION[kind](channels)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Attend, as a block of just these channels would."""
        state = self.sliced(x.shape[1])
        return torch.func.functional_call(self.whole, state, (x,))

    def sliced(self, channels: int) -> dict[str, Tensor]:
        """The weights of a block of so many channels."""
        whole, hidden = dict(self.whole.named_parameters()), round_width(channels / 16)
        state = {
            "reduce.weight": whole["reduce.weight"][:hidden, :channels],
            "reduce.bias": whole["reduce.bias"][:hidden],
            "expand.weight": whole["expand.weight"][:channels, :hidden],
            "expand.bias": whole["expand.bias"][:channels],
        }
        if isinstance(self.whole, GlobalContext):
            state["look.weight"] = whole["look.weight"][:, :channels]
        return state


class SharedBlock(nn.Module):
    """Every [`X3DBlock`][saccade.nn.x3d_blocks.X3DBlock] that may stand in one place.

    The 1x1x1 convolutions and the attention are shared by all, each kernel has one depth-wise tensor, each pair of
    kernel and expansion its norms; all are of full width.

    Args:
        in_channels: Of the widest input.
        out_channels: Of the widest output.
        space: Where kernels, expansions and attention come from.
        stride: In space; with 2 the block has a projection shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, space: X3DSearchSpace, stride: int) -> None:
        super().__init__()
        self.stride = stride
        inner = max(1, int(max(space.expansions) * out_channels))
        self.pairs = {(k, e): i for i, (k, e) in enumerate((k, e) for k in space.kernels for e in space.expansions)}
        self.expand = nn.Parameter(torch.empty(inner, in_channels, 1, 1, 1))
        self.depthwise = nn.ParameterDict({k: torch.empty(inner, 1, *kernel_sides(k)) for k in space.kernels})
        self.attention = nn.ModuleDict({a: SharedAttention(a, inner) for a in space.attentions if a in ATTENTION})
        self.project = nn.Parameter(torch.empty(out_channels, inner, 1, 1, 1))
        self.expand_norm, self.depthwise_norm = (SharedNorms(inner, len(self.pairs)) for _ in range(2))
        self.project_norm = SharedNorms(out_channels, len(self.pairs), start=0.0)
        self.shortcut: nn.Parameter | None = None
        self.shortcut_norm: SharedNorms | None = None
        if stride != 1:
            self.shortcut = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1, 1))
            self.shortcut_norm = SharedNorms(out_channels, 1)
        for weight in [self.expand, self.project, *self.depthwise.values(), self.shortcut]:
            if weight is not None:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        for module in self.attention.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, x: Float[Tensor, "b c t h w"], chosen: BlockChoice, entering: slice, leaving: slice
    ) -> Float[Tensor, "b d t h2 w2"]:
        """Run the block that was chosen.

        Args:
            x: Its input: the channels `entering` of the widest.
            chosen: Which block.
            entering: Channels of the input.
            leaving: Channels of the output.

        Returns:
            The channels `leaving` of the widest output.
        """
        pair, inner = self.pairs[chosen.kernel, chosen.expansion], slice(0, chosen.plan.inner)
        branch = pointwise_conv3d(x, self.expand[inner, entering])
        branch = F.relu(self.expand_norm(branch, pair, inner))
        branch = depthwise_conv3d(branch, self.depthwise[chosen.kernel][inner], self.stride)
        branch = self.depthwise_norm(branch, pair, inner)
        if chosen.plan.attention in self.attention:
            branch = self.attention[chosen.plan.attention](branch)
        branch = pointwise_conv3d(F.silu(branch), self.project[leaving, inner])
        branch = self.project_norm(branch, pair, leaving)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = pointwise_conv3d(x, self.shortcut[leaving, entering], stride=self.stride)
            x = self.shortcut_norm(x, 0, leaving)
        return F.relu(branch + x)

    def extract(self, chosen: BlockChoice, entering: slice, leaving: slice) -> dict[str, Tensor]:
        """The chosen block's weights, named as in [`X3DBlock`][saccade.nn.x3d_blocks.X3DBlock], without statistics."""
        pair, inner = self.pairs[chosen.kernel, chosen.expansion], slice(0, chosen.plan.inner)
        state = {
            "expand.weight": self.expand[inner, entering],
            "depthwise.weight": self.depthwise[chosen.kernel][inner],
            "project.weight": self.project[leaving, inner],
        }
        norms = [("expand_norm", inner, pair), ("depthwise_norm", inner, pair), ("project_norm", leaving, pair)]
        if self.shortcut is not None:
            state["shortcut.weight"] = self.shortcut[leaving, entering]
            norms.append(("shortcut_norm", leaving, 0))
        for name, channels, row in norms:
            norm = self.get_submodule(name)
            state |= {f"{name}.{key}": value[row, channels] for key, value in norm.named_parameters()}
        if chosen.plan.attention in self.attention:
            shared: Any = self.attention[chosen.plan.attention]
            state |= {f"attention.{key}": value for key, value in shared.sliced(chosen.plan.inner).items()}
        return state


class X3DSupernet(nn.Module):
    """Every network of a search space; clips and an architecture to logits.

    A sample computes with slices of the weights, so that it costs what the derived network costs, and memory is that of
    one network whatever the number of samples. Stages choose fair channels. Batch norms use the statistics of the batch
    and keep no running averages, which would mix architectures.

    Args:
        space: The search space.
        dropout: Before the classifier.

    Note:
        Source: arXiv:2112.04710; how weights are shared is a choice.

    Example:
        >>> space = X3DSearchSpace(4, 32, groups=(1, 2, 3, 4), depths=(1, 2, 1, 1), stem=4, head=8, features=16)
        >>> supernet = X3DSupernet(space)
        >>> supernet(torch.randn(2, 3, 4, 32, 32), space.x3d()).shape
        torch.Size([2, 400])
    """

    def __init__(self, space: X3DSearchSpace, dropout: float = 0.0) -> None:
        super().__init__()
        self.search_space = space
        self.stem = X3DStem(space.in_channels, space.stem)
        channels = space.stem
        for stage, depth in enumerate(space.depths, start=1):
            width = space.widths(stage)[-1]
            inputs = [channels] + (depth - 1) * [width]
            blocks = [SharedBlock(entering, width, space, 1 if i else 2) for i, entering in enumerate(inputs)]
            channels = width
            setattr(self, f"layer{stage}", nn.ModuleList(blocks))
        self.head = X3DHead(channels, space.head, space.features, norm_embed=False)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(space.features, space.num_classes)
        for part in (self.stem, self.head):
            for module in part.modules():
                if isinstance(module, nn.Conv3d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            part.norm = nn.BatchNorm3d(part.norm.num_features, track_running_stats=False)  # type: ignore[arg-type]
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def channels(self, stage: int, width: int) -> slice:
        """The fair channels of a stage of that width."""
        candidates, group = self.search_space.candidates[stage - 1], self.search_space.groups[stage - 1]
        return slice(0, width) if candidates == 1 else fair_channel_slices(candidates, group)[width // group - 1]

    def forward(self, clips: Float[Tensor, "b c t h w"], architecture: Int[Tensor, " l"]) -> Float[Tensor, "b k"]:
        """Classify clips by one architecture.

        Args:
            clips: Normalised clips.
            architecture: Indices of choices.

        Returns:
            Logits.

        Raises:
            TypeError: uint8 or other integer input.
            ValueError: An architecture of another space, or clips of another shape.
        """
        if not clips.is_floating_point():
            raise TypeError(f"clips have to be floating-point and normalised, not {clips.dtype}")
        if clips.ndim != 5 or clips.shape[1] != self.search_space.in_channels:
            wanted = f"(b, {self.search_space.in_channels}, t, h, w)"
            raise ValueError(f"clips have to be {wanted}, not {tuple(clips.shape)}")
        if clips.device.type == "cpu":
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        x, entering = self.stem(clips), slice(0, self.search_space.stem)
        for stage, (width, blocks) in enumerate(self.search_space.choices(architecture), start=1):
            leaving = self.channels(stage, width)
            for i, chosen in enumerate(blocks):
                if chosen is not None:
                    block = getattr(self, f"layer{stage}")[i]
                    x = block(x, chosen, entering if i == 0 else leaving, leaving)
            entering = leaving
        x = pointwise_conv3d(x, self.head.expand.weight[:, entering])
        x = F.relu(self.head.norm(x)).mean((2, 3, 4), keepdim=True)
        return self.fc(self.dropout(F.relu(self.head.embed(x)).flatten(1)))

    def log_likelihood(self, batch: Mapping[str, Any], architecture: Int[Tensor, " l"]) -> Float[Tensor, ""]:
        """The mean log-likelihood of a batch with `video`, single clips or views of some, and `label`."""
        video, label = batch["video"], batch["label"]
        if video.ndim == 6:
            video, label = video.flatten(0, 1), label.repeat_interleave(video.shape[1])
        logits = self(video, architecture)
        return -F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), label)

    def extract(self, architecture: Int[Tensor, " l"]) -> AutoX3D:
        """The network of an architecture with the weights that it has here.

        In training mode it computes what the supernet does; its running statistics are those of a new network, and need
        some batches before it is of use in eval mode.

        Args:
            architecture: Indices of choices.

        Returns:
            A network of its own.
        """
        space = self.search_space
        model = AutoX3D(space.decode(architecture), space.num_classes, self.dropout.p).to(self.fc.weight)
        state, entering = dict(model.state_dict()), slice(0, space.stem)
        for stage, (width, blocks) in enumerate(space.choices(architecture), start=1):
            leaving, kept = self.channels(stage, width), 0
            for i, chosen in enumerate(blocks):
                if chosen is not None:
                    block: SharedBlock = getattr(self, f"layer{stage}")[i]
                    weights = block.extract(chosen, entering if i == 0 else leaving, leaving)
                    state |= {f"layer{stage}.{kept}.{key}": value for key, value in weights.items()}
                    kept += 1
            entering = leaving
        for name in ("stem", "head", "fc"):
            state |= {f"{name}.{key}": value for key, value in self.get_submodule(name).state_dict().items()}
        state["head.expand.weight"] = self.head.expand.weight[:, entering]
        load_strict(model, {key: value.detach().clone() for key, value in state.items()})
        return model
