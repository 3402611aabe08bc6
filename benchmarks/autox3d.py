"""X3D-S on clips of its published size, against the plain formulation with grouped 3D convolutions."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from saccade.bench import Comparison
from saccade.nn.clip_convolutions import DepthwiseConv3d, PointwiseConv3d, SpatialConv3d
from saccade.nn.x3d import X3D, x3d_s


class PlainConv3d(nn.Conv3d):
    """A 3D convolution as torch has it, with the weights of one of ours."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.to(conv.weight).load_state_dict(conv.state_dict())


class PlainX3D(X3D):
    """The same network and weights, with nothing but `nn.Conv3d` and tensors in torch's usual order."""

    def clip_features(self, clips: Tensor) -> Tensor:
        """The map after the last stage."""
        x = self.stem(clips.contiguous())
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return x


def plain(model: X3D) -> PlainX3D:
    """The plain twin of a network."""
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PointwiseConv3d | SpatialConv3d | DepthwiseConv3d):
                setattr(parent, name, PlainConv3d(child))
    twin.__class__ = PlainX3D
    return twin  # type: ignore[return-value]


def awake(model: nn.Module) -> None:
    """Norms that do something: at the start the last one of each block is zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)


def sides(model: X3D) -> tuple[X3D, X3D, PlainX3D]:
    """Ours, ours with its norms folded, and the plain twin, in eval mode."""
    awake(model)
    return model.eval(), model.fused(), plain(model).eval()


@torch.inference_mode()
def infer(model: nn.Module, clips: Tensor) -> Tensor:
    """Logits."""
    return model(clips)


def train(model: nn.Module, clips: Tensor) -> None:
    """A forward and a backward pass."""
    model(clips).sum().backward()


def comparisons() -> Iterator[Comparison]:
    """Inference as it is and with norms folded, and training."""
    torch.manual_seed(0)
    ours, fused, peer = sides(x3d_s())
    clips = torch.randn(1, 3, 13, 160, 160)
    limit = "memory traffic: depth-wise convolutions and norms"
    for name, model in (("inference", ours), ("inference, norms folded", fused)):
        yield Comparison(
            name=f"X3D-S {name}, a clip of 13 x 160 x 160",
            ours=lambda model=model: infer(model, clips),
            peer=lambda: infer(peer, clips),
            peer_name="grouped Conv3d",
            target=1.0,
            limit=limit,
        )
    ours.train(), peer.train()
    yield Comparison(
        name="X3D-S forward + backward, a clip of 13 x 160 x 160",
        ours=lambda: train(ours, clips),
        peer=lambda: train(peer, clips),
        peer_name="grouped Conv3d",
        target=1.0,
        limit=limit,
    )
