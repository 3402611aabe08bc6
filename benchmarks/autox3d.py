"""X3D against PyTorchVideo's, or the plain formulation, over clip lengths; and a step of the search.

PyTorchVideo is the peer where it can be imported; else the same network with nothing but grouped 3D convolutions. A
step of the search is compared with the same step written plainly: every sample computed, also those drawn twice, and
twice, once for its likelihood and once for its weighted gradient.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.action.autox3d import X3DSearchSpace
from saccade.action.x3d_supernet import X3DSupernet
from saccade.bench import Comparison
from saccade.nn.architectures import CategoricalArchitectureDistribution
from saccade.nn.clip_convolutions import DepthwiseConv3d, PointwiseConv3d, SpatialConv3d
from saccade.nn.fair_channels import fair_channel_masks
from saccade.nn.probabilistic_search import ProbabilisticSearch, importance_weights
from saccade.nn.x3d import X3D, x3d_s

PYTORCHVIDEO = importlib.util.find_spec("pytorchvideo") is not None


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


def pytorchvideo_twin(model: X3D, frames: int) -> tuple[X3D, nn.Module]:
    """Ours and PyTorchVideo's X3D-S with the same weights, in eval mode."""
    from pytorchvideo.models.x3d import create_x3d

    from saccade.action.checkpoints import convert_x3d
    from saccade.checkpoints import load_strict

    crop = model.input_spec.size
    peer = create_x3d(input_clip_length=frames, input_crop_size=crop, head_activation=None).eval()
    awake(peer)
    load_strict(model, convert_x3d(peer.state_dict()))
    return model.eval(), peer


@torch.inference_mode()
def infer(model: nn.Module, clips: Tensor) -> Tensor:
    """Logits."""
    return model(clips)


def train(model: nn.Module, clips: Tensor) -> None:
    """A forward and a backward pass."""
    model(clips).sum().backward()


SPACE = X3DSearchSpace(
    frames=4, crop=64, num_classes=20, groups=(4, 8, 16, 32), depths=(1, 2, 3, 2), stem=16, head=108, features=256
)
"""A small space, for the comparisons of the search."""


def settled_search(samples: int = 14) -> tuple[X3DSupernet, ProbabilisticSearch]:
    """A supernet, and a search whose distribution is about to settle, so that some samples are equal."""
    torch.manual_seed(0)
    supernet = X3DSupernet(SPACE)
    distribution = CategoricalArchitectureDistribution(SPACE.space)
    with torch.no_grad():
        distribution.logits[:, 0] = 4.5
    cost, target = SPACE.cost(), float(SPACE.cost()(SPACE.x3d()[None])[0])
    search = ProbabilisticSearch(
        supernet.log_likelihood,
        distribution,
        cost,
        target,
        min_samples=samples,
        max_samples=samples,
        parameters=list(supernet.parameters()),
        generator=torch.Generator(),
    )
    return supernet, search


def a_batch(size: int = 8) -> dict[str, Tensor]:
    """Random clips and labels."""
    draw = torch.Generator().manual_seed(0)
    video = torch.randn(size, 3, SPACE.frames, SPACE.crop, SPACE.crop, generator=draw)
    return {"video": video, "label": torch.randint(SPACE.num_classes, (size,), generator=draw)}


def our_step(search: ProbabilisticSearch, batch: dict[str, Tensor]) -> None:
    """Gradients of the shared weights."""
    assert search.generator is not None
    search.generator.manual_seed(0)
    search.weight_gradients(batch)


def plain_step(search: ProbabilisticSearch, batch: dict[str, Tensor]) -> None:
    """The same gradients, written as the equations are: likelihoods first, then the gradient of their weighted sum."""
    assert search.generator is not None
    search.generator.manual_seed(0)
    drawn, _ = search.draw()
    for parameter in search.parameters:
        parameter.grad = None
    with torch.no_grad():
        likelihoods = torch.stack([search.log_likelihood(batch, row) for row in drawn]).double()
    weights = importance_weights(search.sharpness * likelihoods, search.cost(drawn), search.target, search.cost_weight)
    for weight, row in zip(weights.tolist(), drawn, strict=True):
        (-weight * search.log_likelihood(batch, row)).backward()


def graphs_step(search: ProbabilisticSearch, batch: dict[str, Tensor]) -> None:
    """The same gradients with the graphs of all samples held at once: one pass each, but the memory of all."""
    assert search.generator is not None
    search.generator.manual_seed(0)
    drawn, _ = search.draw()
    for parameter in search.parameters:
        parameter.grad = None
    likelihoods = torch.stack([search.log_likelihood(batch, row) for row in drawn])
    scores = search.sharpness * likelihoods.detach().double()
    weights = importance_weights(scores, search.cost(drawn), search.target, search.cost_weight)
    (-(weights.to(likelihoods) * likelihoods).sum()).backward()


def masked(supernet: X3DSupernet, batch: dict[str, Tensor], architecture: Tensor) -> Tensor:
    """The log-likelihood with full widths and masks in the place of slices."""
    space = supernet.search_space
    clips = batch["video"].contiguous(memory_format=torch.channels_last_3d)
    x = supernet.stem(clips)
    full = slice(None)
    for stage, (width, blocks) in enumerate(space.choices(architecture), start=1):
        group = space.groups[stage - 1]
        mask = fair_channel_masks(space.candidates[stage - 1], group)[width // group - 1].to(x)[:, None, None, None]
        for i, chosen in enumerate(blocks):
            if chosen is not None:
                x = getattr(supernet, f"layer{stage}")[i](x, chosen, full, full) * mask
    x = F.relu(supernet.head.norm(supernet.head.expand(x))).mean((2, 3, 4), keepdim=True)
    logits = supernet.fc(F.relu(supernet.head.embed(x)).flatten(1))
    return -F.cross_entropy(logits, batch["label"])


def comparisons() -> Iterator[Comparison]:
    """Inference, training, clip lengths; then the search."""
    torch.manual_seed(0)
    limit = "memory traffic: depth-wise convolutions and norms"
    model, peer_name = x3d_s(), "PyTorchVideo" if PYTORCHVIDEO else "grouped Conv3d"
    ours, fused, peer = sides(model)
    if PYTORCHVIDEO:
        ours, peer = pytorchvideo_twin(model, 13)  # type: ignore[assignment]
        fused = ours.fused()
    clips = torch.randn(1, 3, 13, 160, 160)
    for name, network in (("inference", ours), ("inference, norms folded", fused)):
        yield Comparison(
            name=f"X3D-S {name}, a clip of 13 x 160 x 160",
            ours=lambda network=network: infer(network, clips),
            peer=lambda: infer(peer, clips),
            peer_name=peer_name,
            target=1.0,
            limit=limit,
        )
    ours.train(), peer.train()
    yield Comparison(
        name="X3D-S forward + backward, a clip of 13 x 160 x 160",
        ours=lambda: train(ours, clips),
        peer=lambda: train(peer, clips),
        peer_name=peer_name,
        target=1.0,
        limit=limit,
    )
    for frames in (8, 16, 32, 64):
        torch.manual_seed(0)
        network = x3d_s(frames=frames)
        awake(network)
        twin: nn.Module = plain(network).eval()
        if PYTORCHVIDEO:
            network, twin = pytorchvideo_twin(network, frames)
        network, clip = network.fused(), torch.randn(1, 3, frames, 160, 160)
        yield Comparison(
            name=f"X3D-S inference, norms folded, 160 x 160 (a clip of {frames} frames)",
            ours=lambda network=network, clip=clip: infer(network, clip),
            peer=lambda twin=twin, clip=clip: infer(twin, clip),
            peer_name=peer_name,
            target=1.0,
            memory_target=0.9,
            limit=limit,
        )
    supernet, search = settled_search()
    batch = a_batch()
    yield Comparison(
        name="search, gradients of the shared weights by 14 samples of a settled distribution",
        ours=lambda: our_step(search, batch),
        peer=lambda: plain_step(search, batch),
        peer_name="each sample by itself, likelihood and gradient in two passes",
        target=1.2,
        limit="one forward and one backward pass a different sample",
    )
    yield Comparison(
        name="search, the same against all graphs at once",
        ours=lambda: our_step(search, batch),
        peer=lambda: graphs_step(search, batch),
        peer_name="graphs of all samples held",
        target=1.0,
        memory_target=4.0,
        limit="one forward and one backward pass a different sample",
    )
    row = SPACE.x3d()
    yield Comparison(
        name="search, forward + backward of one sample of the middle widths",
        ours=lambda: (-supernet.log_likelihood(batch, row)).backward(),
        peer=lambda: (-masked(supernet, batch, row)).backward(),
        peer_name="full widths and masks",
        target=1.0,
        limit=limit,
    )
