"""From the authors' state dicts to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from saccade.checkpoints import Rule, StateDict, convert

_PREFIX = r"(?:module\.)?(?:base_model\.)?"

MOTION_SQUEEZE_BLOCK = (
    Rule(r"chnl_reduction\.(.*)", r"reduce.\1"),
    *(Rule(rf"flow_refinement\.conv{n + 1}\.(.*)", rf"transform.{n}.\1") for n in range(9)),
)

TSM_RESNET = (
    Rule(_PREFIX + r"(conv1|bn1)\.(.*)", r"\1.\2"),
    Rule(_PREFIX + r"(layer\d+\.\d+\.conv\d)\.net\.(.*)", r"\1.\2"),  # TSM wraps the shifted convolution
    Rule(_PREFIX + r"(layer\d+\.\d+\.(?:conv\d|bn\d|downsample\.\d)\..*)", r"\1"),
    Rule(r"(?:module\.)?(?:base_model\.fc1?|new_fc|fc1?)\.weight", "fc.weight", lambda w: w.flatten(1)),
    Rule(r"(?:module\.)?(?:base_model\.fc1?|new_fc|fc1?)\.bias", "fc.bias"),
)


_X3D_LAYERS = {
    "expand": ("a", "conv_a"),
    "expand_norm": ("a_bn", "norm_a"),
    "depthwise": ("b", "conv_b"),
    "depthwise_norm": ("b_bn", r"norm_b\.0"),
    "attention.reduce": (r"se\.fc1", r"norm_b\.1\.block\.0"),
    "attention.expand": (r"se\.fc2", r"norm_b\.1\.block\.2"),
    "project": ("c", "conv_c"),
    "project_norm": ("c_bn", "norm_c"),
}

X3D_BLOCK = (
    *(Rule(rf"branch2\.{slowfast}\.(\w+)", rf"{ours}.\1") for ours, (slowfast, _) in _X3D_LAYERS.items()),
    Rule(r"branch1\.(\w+)", r"shortcut.\1"),
    Rule(r"branch1_bn\.(\w+)", r"shortcut_norm.\1"),
    *(Rule(rf"branch2\.{video}\.(\w+)", rf"{ours}.\1") for ours, (_, video) in _X3D_LAYERS.items()),
    Rule(r"branch1_conv\.(\w+)", r"shortcut.\1"),
    Rule(r"branch1_norm\.(\w+)", r"shortcut_norm.\1"),
)

X3D_NETWORK = (
    Rule(r"s1\.pathway0_stem\.conv_xy\.weight", "stem.spatial.weight"),
    Rule(r"s1\.pathway0_stem\.conv\.weight", "stem.temporal.weight"),
    Rule(r"s1\.pathway0_stem\.bn\.(\w+)", r"stem.norm.\1"),
    Rule(r"head\.conv_5\.weight", "head.expand.weight"),
    Rule(r"head\.conv_5_bn\.(\w+)", r"head.norm.\1"),
    Rule(r"head\.lin_5\.weight", "head.embed.weight"),
    Rule(r"head\.lin_5_bn\.(\w+)", r"head.embed_norm.\1"),
    Rule(r"head\.projection\.(weight|bias)", r"fc.\1"),
    Rule(r"blocks\.0\.conv\.conv_t\.weight", "stem.spatial.weight"),  # PyTorchVideo names the two the wrong way round
    Rule(r"blocks\.0\.conv\.conv_xy\.weight", "stem.temporal.weight"),
    Rule(r"blocks\.0\.norm\.(\w+)", r"stem.norm.\1"),
    Rule(r"blocks\.5\.pool\.pre_conv\.weight", "head.expand.weight"),
    Rule(r"blocks\.5\.pool\.pre_norm\.(\w+)", r"head.norm.\1"),
    Rule(r"blocks\.5\.pool\.post_conv\.weight", "head.embed.weight"),
    Rule(r"blocks\.5\.pool\.post_norm\.(\w+)", r"head.embed_norm.\1"),
    Rule(r"blocks\.5\.proj\.(weight|bias)", r"fc.\1"),
)

_X3D_BLOCK_KEY = re.compile(r"(?:s([2-5])\.pathway0_res(\d+)|blocks\.([1-4])\.res_blocks\.(\d+))\.(branch.*)")


def convert_x3d(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the weights of an X3D of SlowFast or of PyTorchVideo into those of [`X3D`][saccade.nn.x3d.X3D].

    PyTorchVideo has no batch norm on a projection shortcut that keeps the width: there one that changes nothing is put
    in. A single block, keys `branch1.*` and `branch2.*`, is turned into one of `X3DBlock`.

    Args:
        state: What is below `model_state` in `x3d_{xs,s,m,l}.pyth` or `X3D_{XS,S,M,L}.pyth`.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known, or those of both at once.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        found = _X3D_BLOCK_KEY.fullmatch(key)
        if found:
            stage = int(found[1]) - 1 if found[1] else int(found[3])
            prefix, inner = f"layer{stage}.{found[2] or found[4]}.", found[5]
        else:
            prefix, inner = "", key
        if inner in groups.setdefault(prefix, {}):
            raise ValueError(f"two keys of the checkpoint become one of {prefix}{inner}, the second is {key!r}")
        groups[prefix][inner] = tensor
    converted: StateDict = {}
    for prefix, inside in groups.items():
        alone = not prefix and all(key.startswith("branch") for key in inside)
        block = convert(inside, X3D_BLOCK if prefix or alone else X3D_NETWORK)
        if "shortcut.weight" in block and "shortcut_norm.weight" not in block:
            block |= _no_change(block["shortcut.weight"], "expand_norm.num_batches_tracked" in block)
        converted |= {prefix + key: tensor for key, tensor in block.items()}
    return converted


def _no_change(convolution: Tensor, counted: bool, eps: float = 1e-5) -> StateDict:
    """A batch norm that gives in eval mode what it is given."""
    ones = convolution.new_ones(convolution.shape[0])
    norm = {"weight": ones, "bias": 0 * ones, "running_mean": 0 * ones, "running_var": ones - eps}
    counter = {"num_batches_tracked": torch.zeros((), dtype=torch.int64, device=ones.device)} if counted else {}
    return {f"shortcut_norm.{key}": tensor for key, tensor in (norm | counter).items()}


def convert_motion_squeeze_block(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the weights of the authors' module alone into those of `MotionSqueeze`.

    Args:
        state: Keys `chnl_reduction.*` and `flow_refinement.conv{1..4}.*`.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known.
    """
    return convert(state, MOTION_SQUEEZE_BLOCK)


def convert_motion_squeeze(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the state dict of the authors' MSNet into that of [`msnet`][saccade.action.motion_squeeze.msnet].

    Both layouts are taken: the bare network (`conv1.*`, `layer1.*`, `fc1.*`), and that of a training file
    (`module.base_model.*`, with the classifier as `module.new_fc.*`). The unused `bn2` at top level is dropped.

    Args:
        state: The authors' state dict.

    Returns:
        Our state dict; the block's keys are below `slot.`.

    Raises:
        ValueError: Keys that are not known, or two classifiers.
    """
    inside = tuple(Rule(_PREFIX + rule.pattern, f"slot.{rule.replacement}") for rule in MOTION_SQUEEZE_BLOCK)
    return convert(state, (Rule(_PREFIX + r"bn2\..*", None), *inside, *TSM_RESNET))


def convert_tsm(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the state dict of the authors' TSN or TSM ResNet into that of `VideoResNet`.

    Args:
        state: Keys `module.base_model.layer1.0.conv1.net.weight` and the like, and `module.new_fc.*`.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known, or two classifiers.
    """
    return convert(state, TSM_RESNET)
