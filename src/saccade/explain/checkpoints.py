"""The four VOC and COCO classifiers of TorchRay: their architecture, and their state dicts turned into ours.

The files are flat state dicts of Caffe-converted networks: `vgg16_voc-b050e8c3`, `vgg16_coco-d82c8150`,
`resnet50_voc-9ca920d6` and `resnet50_coco-e99468c5`. Both networks here are fully convolutional, so that they slide
over images of any size, and give logits (n, k, h, w).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet50, vgg16

from saccade.checkpoints import Rule, StateDict, load_strict
from saccade.checkpoints import convert as convert_keys
from saccade.surgery import find_layers, linear_to_conv

MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
STD = (1 / 255, 1 / 255, 1 / 255)

_VGG = (
    Rule(r"features\.0\.weight", "features.0.weight", lambda w: w.flip(1)),
    Rule(r"(features\.\d+\.(?:weight|bias))", r"\1"),
    Rule(r"classifier\.0\.weight", "classifier.0.weight", lambda w: w.reshape(len(w), -1, 7, 7)),
    Rule(r"classifier\.2\.weight", "classifier.3.weight", lambda w: w.reshape(len(w), -1, 1, 1)),
    Rule(r"classifier\.4\.weight", "classifier.6.weight", lambda w: w.reshape(len(w), -1, 1, 1)),
    Rule(r"classifier\.0\.bias", "classifier.0.bias"),
    Rule(r"classifier\.2\.bias", "classifier.3.bias"),
    Rule(r"classifier\.4\.bias", "classifier.6.bias"),
)
# batch norms were saved as pairs: index 0 holds the statistics, index 1 scale and shift
_PAIR = r"(?:[01]\.)?((?:weight|bias|running_mean|running_var|num_batches_tracked))"
_RESNET = (
    Rule(r"conv1\.weight", "conv1.weight", lambda w: w.flip(1)),
    Rule(r"conv1\.bias", "conv1.bias"),
    Rule(r"bn1\." + _PAIR, r"bn1.\1"),
    Rule(r"(layer\d\.\d+)\.conv(\d)\.weight", r"\1.conv\2.weight"),
    Rule(r"(layer\d\.\d+)\.bn(\d)\." + _PAIR, r"\1.bn\2.\3"),
    Rule(r"(layer\d\.\d+)\.downsample\.0\.(?:0\.)?weight", r"\1.downsample.0.weight"),
    Rule(r"(layer\d\.\d+)\.downsample\.1\." + _PAIR, r"\1.downsample.1.\2"),
    Rule(r"fc\.weight", "fc.weight", lambda w: w.reshape(len(w), -1, 1, 1)),
    Rule(r"fc\.bias", "fc.bias"),
)


def torchray_vgg16(num_classes: int) -> nn.Module:
    """VGG16, fully convolutional, all max-pools with `ceil_mode`.

    Args:
        num_classes: 20 for VOC, 80 for COCO.

    Returns:
        A model with `features`, `avgpool` (nothing), `classifier` (7x7, 1x1, 1x1 convolutions at 0, 3, 6).
    """
    base = vgg16(weights=None, num_classes=num_classes)
    for pool in find_layers(base, nn.MaxPool2d).values():
        pool.ceil_mode = True  # type: ignore[assignment]
    head = base.classifier
    for index, kernel in ((0, 7), (3, 1), (6, 1)):
        head[index] = linear_to_conv(head[index], kernel)
    return nn.Sequential(OrderedDict(features=base.features, avgpool=nn.Identity(), classifier=head))


def torchray_resnet50(num_classes: int, *, sliding_pool: bool = False) -> nn.Module:
    """ResNet-50 as Caffe has it, fully convolutional.

    The first convolution has a bias, the max-pool is 3/2 with `ceil_mode` and no padding, and the stride of layers 2
    to 4 sits in the first 1x1 convolution of their first block.

    Args:
        num_classes: 20 for VOC, 80 for COCO.
        sliding_pool: Replace the global average pool by a 7x7 one of stride 1, as the benchmark does for Grad-CAM.

    Returns:
        A model with the names of torchvision's, the head a 1x1 convolution.
    """
    base = resnet50(weights=None, num_classes=num_classes)
    base.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=True)
    pool: nn.Module = nn.AvgPool2d(7, stride=1) if sliding_pool else nn.AdaptiveAvgPool2d(1)
    for layer in (base.layer2, base.layer3, base.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return nn.Sequential(
        OrderedDict(
            conv1=base.conv1, bn1=base.bn1, relu=base.relu, maxpool=nn.MaxPool2d(3, 2, padding=0, ceil_mode=True),
            layer1=base.layer1, layer2=base.layer2, layer3=base.layer3, layer4=base.layer4, avgpool=pool,
            fc=linear_to_conv(base.fc),
        )
    )  # fmt: skip


def convert(state: Mapping[str, Tensor]) -> StateDict:
    """The authors' state dict in the keys of `torchray_vgg16` or `torchray_resnet50`, whichever it is of.

    Index levels and missing dropouts are put right, fully connected weights become convolutions, and the first
    convolution's input channels are reversed (BGR to RGB).

    Args:
        state: The authors' state dict.

    Returns:
        Ours.

    Raises:
        ValueError: Missing or unknown keys; the message lists them.
    """
    vgg = any(key.startswith("features.") for key in state)
    converted = convert_keys(state, _VGG if vgg else _RESNET)
    head = converted.get("classifier.6.bias" if vgg else "fc.bias")
    if head is None:
        raise ValueError(f"the checkpoint has no bias of its last layer, {'classifier.4' if vgg else 'fc'}.bias")
    with torch.device("meta"):
        model = torchray_vgg16(len(head)) if vgg else torchray_resnet50(len(head))
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            converted.setdefault(key, torch.zeros_like(value, device="cpu"))
    _check(model, converted)
    return converted


def from_state(state: Mapping[str, Tensor]) -> nn.Module:
    """The model of a converted state dict, with its weights, in eval mode.

    Args:
        state: From `convert`.

    Returns:
        The model.

    Raises:
        ValueError: The state dict fits neither architecture.
    """
    vgg = "classifier.6.bias" in state
    if not vgg and "fc.bias" not in state:
        raise ValueError("the state dict is of neither torchray_vgg16 nor torchray_resnet50")
    model = torchray_vgg16(len(state["classifier.6.bias"])) if vgg else torchray_resnet50(len(state["fc.bias"]))
    load_strict(model, state)
    return model.eval()


def _check(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """As `load_strict`, without loading: the model holds no data."""
    kind = "TorchRay's VGG16" if hasattr(model, "features") else "TorchRay's ResNet-50"
    own = model.state_dict()
    faults = [f"{key} is missing" for key in own if key not in state]
    faults += [f"{key} is too many" for key in state if key not in own]
    faults += [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if faults:
        rest = f" and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise ValueError(f"the checkpoint does not fit {kind}: {', '.join(faults[:8])}{rest}")


def normalise(image: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """What these classifiers want: RGB in [0, 1] minus Caffe's mean, times 255.

    Args:
        image: RGB in [0, 1].

    Returns:
        Normalised.
    """
    mean = torch.tensor(MEAN, dtype=image.dtype, device=image.device).view(3, 1, 1)
    return (image - mean) * 255
