"""Converters from the authors' state dicts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from saccade.checkpoints import Rule, StateDict, convert

HEAD = [
    Rule(r"(?:model\.)?embedding\.(weight|bias)", r"head.linear.\1"),
    Rule(r"(?:model\.)?(?:fc|last_linear)\..*", None),  # ImageNet's classifier: kept in the file, unused
]
RESNET = [
    Rule(r"(?:model\.)?((?:conv1|bn1|layer[1-4])\..*)", r"backbone.\1"),
]
_BRANCHES = {
    "1x1": "one",
    "3x3_reduce": "three.0",
    "3x3": "three.1",
    "double_3x3_reduce": "twice.0",
    "double_3x3_1": "twice.1",
    "double_3x3_2": "twice.2",
    "pool_proj": "project",
}
_STEM = {"conv1_7x7_s2": "conv1", "conv2_3x3_reduce": "conv2_reduce", "conv2_3x3": "conv2"}
INCEPTION = [
    *(
        Rule(rf"(?:model\.)?{theirs}{suffix}\.(.*)", rf"backbone.{ours}.{layer}.\1")
        for theirs, ours in _STEM.items()
        for suffix, layer in (("", "conv"), ("_bn", "norm"))
    ),
    *(
        Rule(
            rf"(?:model\.)?inception_(\w\w)_{theirs}{suffix}\.(.*)", rf"backbone.blocks.inception_\1.{ours}.{layer}.\2"
        )
        for theirs, ours in _BRANCHES.items()
        for suffix, layer in (("", "conv"), ("_bn", "norm"))
    ),
]


def convert_proxy_anchor(state: Mapping[str, Tensor]) -> StateDict:
    """The authors' Proxy-Anchor checkpoint as a state dict of `ProxyAnchorModel`.

    The backbone (ResNet or Inception-BN) is known by its keys. Proxies are not in the file.

    Args:
        state: Keys `model.layer1.0.conv1.weight`, `model.embedding.weight`, ...; or of the Caffe port,
            `model.inception_3a_1x1.weight`, ....

    Returns:
        Keys `backbone.*` and `head.linear.*`.

    Raises:
        ValueError: Keys that belong to neither.
    """
    inception = any("inception_3a" in key for key in state)
    return convert(state, [*HEAD, *(INCEPTION if inception else RESNET)])


LOG_RATIO = [
    Rule(r"model\.fc\.(weight|bias)", r"head.\1"),
    Rule(r"fc\..*", None),  # of a plain ImageNet network: its classifier
    *RESNET,
]


def convert_log_ratio(state: Mapping[str, Tensor]) -> StateDict:
    """A training checkpoint of the authors' log-ratio code, or a plain torchvision ResNet, for `LogRatioModel`.

    Args:
        state: Keys `model.layer1.0.conv1.weight`, ..., `model.fc.weight` (d, c); or those of torchvision, whose
            classifier is left out, so that the head starts at random.

    Returns:
        Keys `backbone.*` and `head.*`.

    Raises:
        ValueError: Keys that belong to neither.
    """
    return convert(state, LOG_RATIO)
