"""The authors' checkpoints of Deep k-Means: Wide ResNets, before and after re-training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from saccade.checkpoints import Rule, StateDict
from saccade.checkpoints import convert as convert_keys
from saccade.efficiency.wide_resnet import from_state

_NORM = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_RULES = (
    Rule(r"(conv1\.(?:weight|bias))", r"\1"),
    Rule(rf"(bn1\.{_NORM})", r"\1"),
    Rule(r"(linear\.(?:weight|bias))", r"\1"),
    Rule(rf"(layer[123]\.\d+\.bn[12]\.{_NORM})", r"\1"),
    Rule(r"(layer[123]\.\d+\.(?:conv[12]|shortcut\.0)\.(?:weight|bias))", r"\1"),
)


def convert(state: Mapping[str, Tensor]) -> StateDict:
    """The authors' state dict in the keys of `WideResNet`.

    The names are the same; files of PyTorch 0.3 lack the batch norms' counters, which are added as 0.

    Args:
        state: The authors' state dict, such as that of `model_retrained_45x.pth.tar`.

    Returns:
        Ours. `from_state` in `saccade.efficiency.wide_resnet` makes the network of it.

    Raises:
        ValueError: Missing or unknown keys; the message lists them.
    """
    converted = convert_keys(state, _RULES)
    for key in [key for key in converted if key.endswith("running_var")]:
        converted.setdefault(key.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    from_state(converted)
    return converted
