"""Extremal perturbations and RISE against the plain formulation of the paper's library; two methods against captum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from saccade.bench import Comparison
from saccade.explain import ExtremalPerturbation, SmoothMask, grad_cam, gradient, rise_maps
from saccade.explain.plain import PlainMask

LIMIT = "one forward and backward pass of the model per step"


def small_cnn(classes: int = 10) -> nn.Module:
    """Four convolutions, 12 to 32 channels."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 12, 2), (12, 16, 2), (16, 24, 1), (24, 32, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes)).eval()


def backward(function: Callable[[Tensor], Tensor], parameters: Tensor) -> Tensor:
    """Forward and backward of a mask operator."""
    leaf = parameters.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def plain_rise(model: nn.Module, image: Tensor, num_masks: int, cells: int = 7, batch: int = 32) -> Tensor:
    """RISE mask by mask: each chunk is upsampled, each mask cropped and summed in a Python loop."""
    height, width = image.shape[-2:]
    generator = torch.Generator().manual_seed(0)
    cell = [math.ceil(side / cells) for side in (height, width)]
    up = [height + cell[0], width + cell[1]]
    fine = [math.ceil(side / cells) for side in up]
    total: Tensor | None = None
    with torch.no_grad():
        for first in range(0, num_masks, batch):
            count = min(batch, num_masks - first)
            grid = (torch.rand(count, 1, cells, cells, generator=generator) < 0.5).float()
            rows, columns = (torch.randint(side, (count,), generator=generator) for side in cell)
            wide = F.pad(grid, (1, 1, 1, 1), mode="reflect")
            wide = F.interpolate(wide, size=[side * (cells + 2) for side in fine], mode="bilinear", align_corners=False)
            wide = wide[:, :, fine[0] : fine[0] + up[0], fine[1] : fine[1] + up[1]]
            masks = torch.stack(
                [
                    one[:, y : y + height, x : x + width]
                    for one, y, x in zip(wide, rows.tolist(), columns.tolist(), strict=True)
                ]
            )
            scores = model(image * masks).sigmoid()
            part = torch.zeros(scores.shape[1], height, width)
            for score, mask in zip(scores, masks, strict=True):
                part += score[:, None, None] * mask
            total = part if total is None else total + part
    if total is None:
        raise ValueError("no masks")
    return (total / num_masks)[None]


def comparisons() -> Iterator[Comparison]:
    """Ours against the plain formulation, and against captum."""
    torch.manual_seed(0)
    small = small_cnn()
    masks = SmoothMask((224, 224))
    plain = PlainMask(masks)
    parameters = torch.rand(2, 1, *masks.shape_in)
    yield Comparison(
        name="smooth mask, forward and backward, 2 x 224 px, step 7, sigma 21",
        ours=partial(backward, partial(masks._full, bounded=True), parameters),
        peer=partial(backward, plain.full, parameters),
        peer_name="plain formulation",
        target=2.0,
        limit="neighbours x pixels exponentials",
    )
    image = torch.rand(1, 3, 224, 224)
    # of ResNet-18's step the model's own passes are the larger part, on both sides
    for name, model in (("small CNN", small), ("ResNet-18", resnet18(weights=None).eval())):
        search = partial(ExtremalPerturbation, model, (0.05, 0.2), max_iter=4)
        yield Comparison(
            name=f"extremal perturbation, 4 steps, {name}, 2 areas, 224 px",
            ours=partial(search().attribute, image, 1),
            peer=partial(search(plain=True).attribute, image, 1),
            peer_name="plain formulation",
            target=2.0,
            limit=LIMIT,
        )
    image = torch.rand(1, 3, 112, 112)
    for name, model, count in (("small CNN, 1000", small_cnn(1000), 64), ("ResNet-18, 1000", resnet18().eval(), 32)):
        yield Comparison(
            name=f"RISE, {count} masks, {name} classes, 112 px",
            ours=partial(rise_maps, model, image, num_masks=count),
            peer=partial(plain_rise, model, image, count),
            peer_name="plain formulation",
            target=2.0,
            limit="one forward pass of the model per mask",
        )
    try:
        from captum.attr import LayerGradCam, Saliency
    except ImportError:
        return
    model = resnet18(weights=None).eval()
    images = torch.rand(2, 3, 112, 112)
    saliency, cam = Saliency(model), LayerGradCam(model, model.layer4)
    yield Comparison(
        name="gradient, ResNet-18, 2 x 112 px",
        ours=partial(gradient, model, images, 3),
        peer=lambda: saliency.attribute(images.clone().requires_grad_(), target=3),
        peer_name="captum",
        limit="one forward and backward pass of the model",
    )
    yield Comparison(
        name="Grad-CAM, ResNet-18, 2 x 112 px",
        ours=partial(grad_cam, model, images, 3, layer="layer4"),
        peer=lambda: cam.attribute(images, target=3, relu_attributions=True),
        peer_name="captum",
        limit="one forward and backward pass of the model",
    )
