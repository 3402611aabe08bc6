"""Surgery on any `nn.Module` by name: find, hook, edit, insert, replace; every cut can be undone.

Names are those of `nn.Module.named_modules`, such as `layer3.0.conv2`; the empty name is the model itself. It works on
torchvision's, timm's and own models alike, for it uses nothing but the module tree and forward hooks.

Example:
    >>> from torchvision.models import resnet18
    >>> model = resnet18(weights=None)
    >>> block = nn.Conv2d(128, 128, 1)
    >>> undo = insert_after(model, "layer2", block, example=torch.zeros(1, 3, 32, 32))
    >>> "layer2.0.conv1.weight" in model.state_dict(), "layer2.inserted.weight" in model.state_dict()
    (True, True)
    >>> undo()
"""

import torch  # noqa: F401  (for the example above)
from torch import nn  # noqa: F401

from saccade.surgery.cuts import (
    Inserted,
    Undo,
    insert_after,
    insert_before,
    inserted_prefixes,
    map_modules,
    replace_module,
)
from saccade.surgery.hooks import Captured, Probe, edit_output
from saccade.surgery.layers import frozen, linear_to_conv, recalibrate_bn, width_of
from saccade.surgery.names import find_layers, get_module

__all__ = [
    "Captured",
    "Inserted",
    "Probe",
    "Undo",
    "edit_output",
    "find_layers",
    "frozen",
    "get_module",
    "insert_after",
    "insert_before",
    "inserted_prefixes",
    "linear_to_conv",
    "map_modules",
    "recalibrate_bn",
    "replace_module",
    "width_of",
]
