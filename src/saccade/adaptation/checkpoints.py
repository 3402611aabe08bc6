"""Converters from the authors' state dicts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from saccade.checkpoints import Rule, StateDict, convert

MICO = [
    Rule(rf"{theirs}G\.(.*)", rf"{ours}body.\1")
    for theirs, ours in (("", ""), (r"net\.", "classifier."), (r"twin\.", "other."))
] + [
    Rule(rf"{theirs}F1\.(.*)", rf"{ours}head.\1")
    for theirs, ours in (("", ""), (r"net\.", "classifier."), (r"twin\.", "other."))
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
