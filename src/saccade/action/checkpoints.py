"""From the authors' state dicts to ours."""

from __future__ import annotations

from collections.abc import Mapping

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
