"""Converters from the authors' state dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from saccade.checkpoints import Rule, StateDict, convert

MICO = [
    Rule(rf"{theirs}{half}\.(.*)", rf"{ours}{name}.\1")
    for theirs, ours in (("", ""), (r"net\.", "classifier."), (r"twin\.", "other."))
    for half, name in (("G", "body"), ("F1", "head"))
]


def convert_mico(state: Mapping[str, Tensor]) -> StateDict:
    """A training checkpoint of the authors' DeCoTa code for the networks of `cosine_classifier`, or both for `DeCoTa`.

    The authors write two files, `Net_iter_model_...` (f) and `Twin_iter_model_...` (g). Where no counters of batches
    are kept beside the running statistics, they become 0.

    Args:
        state: Keys `G.conv1.weight`, ..., `F1.fc1.weight`, `F1.fc1.bias`, `F1.fc2.weight` of one file; or of both, with
            `net.` and `twin.` before them.

    Returns:
        Keys `body.*` and `head.*` of a classifier; or of `DeCoTa`, `classifier.*` and `other.*`.

    Raises:
        ValueError: Unknown keys.
    """
    converted = convert(state, MICO)
    counters = (key.removesuffix("running_var") + "num_batches_tracked" for key in converted if "running_var" in key)
    return {key: torch.tensor(0) for key in counters} | converted


_BRANCH = r"bns\.\d+\.(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_AFFINE = r"(?:weight|bias)"
DSBN = [
    Rule(rf"((?:layer[1-4]\.\d+\.)?bn[1-3]\.{_BRANCH})", r"\1"),
    Rule(rf"(layer[1-4]\.\d+\.downsample\.1\.{_BRANCH})", r"\1"),
    Rule(r"(layer[1-4]\.\d+\.(?:conv[1-3]|downsample\.0)\.weight)", r"\1"),
    Rule(rf"((?:conv[12]|fc[1-3]?)\.{_AFFINE})", r"\1"),
]
DISCRIMINATOR = [Rule(rf"discriminator\.(\d+\.{_AFFINE})", r"\1")]


def convert_dsbn_checkpoint(state: Mapping[str, Tensor]) -> StateDict:
    """A network that the authors' DSBN code saved, for `dsbn_lenet` or `dsbn_resnet`.

    Their files `best_<model>+<jitter>+i<in_features>_<source>2<target>.pth` hold the state dict under `model`, beside
    the iteration and the options; `saccade.checkpoints.read_state` opens them. Names are the same on both sides.

    Args:
        state: Keys `conv1.weight`, `bn1.bns.0.weight`, `layer1.0.downsample.1.bns.0.weight`, `fc.weight`, ....

    Returns:
        The same keys.

    Raises:
        ValueError: Keys that belong to neither network.
    """
    return convert(state, DSBN)


def convert_dsbn_discriminator(state: Mapping[str, Tensor]) -> StateDict:
    """A discriminator of the authors' DSBN code, for `dsbn_discriminator`.

    Args:
        state: Keys `discriminator.0.weight`, ....

    Returns:
        Keys `0.weight`, ....

    Raises:
        ValueError: Other keys.
    """
    return convert(state, DISCRIMINATOR)


def convert_dsbn_centroids(saved: Mapping[str, Sequence[Mapping[str, Tensor]]]) -> StateDict:
    """The class centroids that the authors' DSBN code keeps in a file of their own, for `MSTN`.

    Args:
        saved: Lists `srcs_centroids` and `trgs_centroids`, a state dict `{"centroids": (k, d)}` a domain.

    Returns:
        Keys `source_centroids.0.centroids`, ..., `target_centroids.0.centroids`, ....

    Raises:
        ValueError: Other keys.

    Example:
        >>> import torch
        >>> saved = {name: [{"centroids": torch.zeros(3, 3)}] for name in ("srcs_centroids", "trgs_centroids")}
        >>> list(convert_dsbn_centroids(saved))
        ['source_centroids.0.centroids', 'target_centroids.0.centroids']
    """
    flat = {
        f"{name}.{number}.{key}": value
        for name, states in saved.items()
        for number, state in enumerate(states)
        for key, value in state.items()
    }
    return convert(
        flat,
        [
            Rule(r"srcs_centroids\.(\d+)\.centroids", r"source_centroids.\1.centroids"),
            Rule(r"trgs_centroids\.(\d+)\.centroids", r"target_centroids.\1.centroids"),
        ],
    )
