"""SELFY: what it sees of motion, its variants, and how it is inserted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import saccade
from saccade.action.metrics import MeanClassAccuracy
from saccade.action.motion_squeeze import MotionSqueeze
from saccade.action.selfy import SELFYBlock, Transformation, insert_selfy, selfynet
from saccade.action.selfy_extraction import ConvExtraction, MLPExtraction, SoftArgmaxExtraction
from saccade.nn.on_clips import OnTokens
from saccade.nn.r2plus1d import R2Plus1D
from saccade.nn.video_resnet import VideoResNet
from saccade.nn.video_vit import VideoTransformer
from saccade.nn.x3d import X3D
from saccade.ops.correlation import spatio_temporal_self_similarity
from saccade.profiling import profile
from saccade.training.models import insert_block

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(saccade.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
TINY: dict[str, Any] = {
    "hidden_channels": 6,
    "window": (3, 9, 9),
    "extraction_channels": (2, 3, 4, 5),
    "integration_channels": (5, 4, 4, 6),
}


def tiny(channels: int = 8, **options: Any) -> SELFYBlock:
    torch.manual_seed(0)
    return SELFYBlock(channels, **{**TINY, "scale": 1.0, **options})


def settled(block: SELFYBlock) -> SELFYBlock:
    """In eval mode with statistics that are not those of a fresh norm."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_(std=0.3)
    return block.eval()


@pytest.mark.parametrize("training", [True, False])
def test_extraction_is_a_3d_convolution_of_each_position(training: bool) -> None:
    """As the authors write it: positions are volumes (1, l, u, v), kernels are (1, 3, 3)."""
    torch.manual_seed(0)
    module = ConvExtraction(9, (2, 3, 4, 5)).double().train(training)
    similarity = torch.randn(2, 2, 2, 3, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    ours = module(similarity)
    x = similarity.flatten(0, 3).unsqueeze(1)
    for i, (layer, stride) in enumerate(zip(module.layers, (1, 2, 2, 1), strict=True)):
        padding = (0, 1, 1) if i < 3 else 0
        x = nn.functional.conv3d(x, layer.conv.weight.unsqueeze(2), stride=(1, stride, stride), padding=padding)
        x = nn.functional.batch_norm(
            x,
            None if training else layer.norm.running_mean,
            None if training else layer.norm.running_var,
            layer.norm.weight,
            layer.norm.bias,
            training,
        ).relu()
    theirs = x.flatten(2).unflatten(0, (2, 2, 2, 3)).permute(0, 5, 1, 4, 2, 3)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    inputs = (similarity, *module.parameters())
    torch.testing.assert_close(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad))


def test_other_norms_work_too() -> None:
    """A norm that is put in the place of batch norm (synchronised, say) is called as a module."""

    class Other(nn.BatchNorm1d):
        calls = 0

        def forward(self, input: Tensor) -> Tensor:
            Other.calls += 1
            return super().forward(input)

    one, two = ConvExtraction(9, (2, 3, 4, 5)), ConvExtraction(9, (2, 3, 4, 5))
    for layer in two.layers:
        layer.norm = Other(layer.norm.num_features)
    two.load_state_dict(one.state_dict())
    similarity = torch.randn(1, 2, 2, 2, 3, 9, 9)
    torch.testing.assert_close(one(similarity), two(similarity), atol=1e-5, rtol=1e-4)
    assert Other.calls == 4
    torch.testing.assert_close(one.state_dict(), two.state_dict())


def test_the_mlp_sees_each_position_and_offset_alone() -> None:
    module, similarity = MLPExtraction(5, 6).eval(), torch.randn(1, 2, 3, 3, 3, 5, 5)
    other = similarity.clone()
    other[0, 1, 2, 0, 1] += 1
    changed = (module(other) - module(similarity)).abs().sum(3) > 0
    assert changed.nonzero().tolist() == [[0, 1, 1, 2, 0]]


@pytest.mark.parametrize(("dy", "dx"), [(1, -1), (0, 2)])
def test_soft_argmax_gives_the_displacement_to_each_frame(dy: int, dx: int) -> None:
    first = torch.randn(1, 64, 12, 12)
    clip = torch.stack([first.roll((dy * t, dx * t), (2, 3)) for t in range(3)], dim=1)
    flow = SoftArgmaxExtraction()(spatio_temporal_self_similarity(clip, (5, 9, 9)))[0, :, 1, :, 4:-4, 4:-4]
    for offset in (-1, 0, 1):
        expected = torch.tensor([dx, dy]).view(2, 1, 1) * offset / 4
        torch.testing.assert_close(flow[offset + 2], expected.expand(2, 4, 4), atol=0.05, rtol=0)
    assert flow[[0, 4]].abs().max() < 1e-6  # beyond the clip nothing is found


@pytest.mark.parametrize("extraction", ["conv", "softargmax", "mlp"])
@pytest.mark.parametrize("integration", ["conv", "mlp", "spatial-mlp"])
def test_variants_learn(extraction: Any, integration: Any) -> None:
    block = tiny(extraction=extraction, integration=integration).train()
    x = torch.randn(2 * 3, 8, 10, 10, requires_grad=True)
    y = block(x, 3)
    assert y.shape == x.shape
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("window", "strides"), [((1, 9, 9), (1, 2, 2, 1)), ((3, 5, 5), (1, 2, 1, 1)), ((3, 13, 13), (1, 2, 2, 2))]
)
def test_windows_of_the_papers_study(window: tuple[int, int, int], strides: tuple[int, ...]) -> None:
    block = tiny(window=window, extraction_strides=strides)
    assert block(torch.randn(4, 8, 8, 8), 2).shape == (4, 8, 8, 8)


def test_clips_do_not_touch_each_other_and_frames_are_folded_clip_by_clip() -> None:
    block, x = settled(tiny()), torch.randn(2, 4, 8, 10, 10)
    y = block(x)
    torch.testing.assert_close(block(x[1:]), y[1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(block(x.flatten(0, 1), 4), y.flatten(0, 1))
    assert not torch.allclose(block(x.flatten(0, 1), 2), y.flatten(0, 1), atol=1e-3)


def test_it_reaches_half_the_window_of_frames_and_with_one_offset_none() -> None:
    x = torch.randn(1, 6, 8, 8, 8)
    other = x.clone()
    other[:, 5] += 1
    for offsets, reach in ((1, 0), (3, 1), (5, 2)):
        block = settled(tiny(window=(offsets, 9, 9)))
        changed = (block(other) - block(x)).abs().amax((0, 2, 3, 4)) > 0
        assert changed.tolist() == [t >= 5 - reach for t in range(6)]


def test_similarities_ignore_the_length_of_features() -> None:
    module = Transformation(8, 6, (3, 5, 5)).eval()
    x = torch.randn(4, 8, 8, 8)
    torch.testing.assert_close(module(x, 2), module(100 * x, 2), atol=1e-3, rtol=0)


def test_a_fresh_block_is_the_identity_on_what_passed_a_relu() -> None:
    x = torch.randn(4, 8, 8, 8)
    torch.testing.assert_close(SELFYBlock(8, **TINY)(x.relu(), 2), x.relu())
    torch.testing.assert_close(SELFYBlock(8, **TINY)(x, 2), x.relu())
    torch.testing.assert_close(SELFYBlock(8, **TINY, relu=False)(x, 2), x)


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (9, 5), (1, 3)])
def test_odd_maps_get_back_their_size_and_only_even_positions_are_written(size: tuple[int, int]) -> None:
    block = settled(tiny(relu=False))
    added = block.motion(torch.randn(4, 8, *size), 2)
    assert added.shape == (4, 8, *size)
    unwritten = added.clone()
    unwritten[:, :, ::2, ::2] = float("nan")
    for channel in unwritten.unbind(1):
        values = channel[channel.isfinite()]
        assert values.numel() == 0 or values.std(unbiased=False) < 1e-6
    assert added[:, :, ::2, ::2].std((0, 2, 3)).max() > 1e-3


def test_double_precision_bfloat16_and_autocast() -> None:
    block, x = settled(tiny()), torch.randn(4, 8, 8, 8)
    exact = block.double()(x.double(), 2)
    assert exact.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        low = block.float()(x, 2)
    torch.testing.assert_close(low.float(), exact.float(), atol=0.1, rtol=0.1)
    whole = block.bfloat16()(x.bfloat16(), 2)
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(whole.float(), exact.float(), atol=0.15, rtol=0.1)


def test_gradients_are_those_of_finite_differences() -> None:
    block = tiny(4, relu=False).double().train()
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: block(x, 2), (x,), atol=1e-4, fast_mode=True)


COMPILE = """
import torch
from saccade.action import SELFYBlock

sizes = {"window": (3, 9, 9), "extraction_channels": (2, 4), "extraction_strides": (2, 3)}
block = SELFYBlock(8, 6, **sizes, integration_channels=(4, 6), scale=1.0)
x = torch.randn(4, 8, 7, 7, requires_grad=True)
compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(compiled(x, 2), block(x, 2), atol=1e-5, rtol=1e-4)
grads = [torch.autograd.grad(f(x, 2).square().sum(), x) for f in (compiled, block)]
torch.testing.assert_close(*grads, atol=1e-3, rtol=1e-3)
exported = torch.export.export(block.eval(), (x.detach(), 2))
torch.testing.assert_close(exported.module()(x.detach(), 2), block(x.detach(), 2))
"""


def test_compile_and_export() -> None:
    """In one graph, forward and backward; in a process of its own, for compilers do not trace the run-time checks."""
    done = subprocess.run([sys.executable, "-c", COMPILE], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


NETWORKS: dict[str, Any] = {
    "tsn": lambda: VideoResNet(3, "basic", (1, 1), stem_width=8, stage_widths=(8, 16)),
    "tsm": lambda: VideoResNet(3, "bottleneck", (1, 1), stem_width=8, stage_widths=(8, 16), shift=8),
    "r2plus1d": lambda: R2Plus1D(3, layers=(1, 1), stem_width=8, stem_middle=6, stage_widths=(8, 16)),
    "x3d": lambda: X3D(4, 64, 1, 0.5, dim_c1=8, dim_c5=16, num_classes=3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_line_inserts_it_behind_the_second_stage(name: str) -> None:
    network, clips = NETWORKS[name](), torch.randn(2, 3, 4, 64, 64)
    before = set(network.state_dict())
    undo = insert_selfy(network, num_frames=4, **TINY)
    added = set(network.state_dict()) - before
    assert before < set(network.state_dict())
    assert all(key.startswith("layer2.selfy.") for key in added)
    network(clips).sum().backward()
    undo()
    assert set(network.state_dict()) == before


def test_a_fresh_block_changes_nothing_in_a_transformer() -> None:
    network = VideoTransformer(32, 8, frames=4, dim=24, depth=3, heads=3, num_classes=5).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    plain = network.tokens(clips)
    undo = insert_selfy(network, num_frames=4, after="blocks.1", **TINY)
    torch.testing.assert_close(network.tokens(clips), plain)
    network.blocks[1].selfy.block.integration.upsample[1].weight.data.fill_(1000.0)
    assert (network.tokens(clips) - plain).abs().max() > 1e-3
    undo()
    torch.testing.assert_close(network.tokens(clips), plain)


def test_the_profiler_inserts_it_into_a_transformer() -> None:
    network = VideoTransformer(32, 8, frames=4, dim=24, depth=1, heads=3, num_classes=5)
    clip = torch.randn(1, 3, 4, 32, 32)
    insert_block(network, "blocks.0=saccade.action.SELFYBlock channels=24 hidden_channels=4 relu=false", clip)
    assert network(clip).shape == (1, 5)


def test_tokens_become_maps_and_the_class_token_passes_by() -> None:
    class Add(nn.Module):
        def forward(self, x: Tensor, num_frames: int) -> Tensor:
            return x + torch.arange(len(x)).view(-1, 1, 1, 1) * 100.0 + 10 * torch.arange(2.0).view(2, 1)

    moved = OnTokens(Add(), 2, (2, 3))(torch.zeros(1, 13, 1)).flatten()
    assert moved.tolist() == [0, *[0, 0, 0, 10, 10, 10], *[100, 100, 100, 110, 110, 110]]


def test_the_network_is_the_papers() -> None:
    model = selfynet("resnet50")
    count, without = (sum(p.numel() for p in m.parameters()) for m in (model, VideoResNet(174)))
    assert count - without == sum(p.numel() for p in SELFYBlock(512).parameters()) == 966_284
    assert (model.slot_after, model.slot.window, model.layer1[0].shift) == (2, (5, 9, 9), 8)
    assert selfynet("resnet18", shift=False, window=(3, 9, 9)).slot.window == (3, 9, 9)
    block = SELFYBlock(512)
    assert block.transformation(torch.randn(8, 512, 28, 28), 8).shape == (1, 8, 14, 14, 5, 9, 9)


def test_its_cost_is_counted() -> None:
    block, x = SELFYBlock(64, 32), torch.randn(4, 64, 16, 16)
    costs = profile(block, [x.unflatten(0, (1, 4))], depth=3, runs=1, warmup=0)
    by_name = {row.name: row.macs for row in costs.modules}
    images = 4 * 5 * 64  # frames, offsets, positions
    assert by_name["transformation"] == 4 * 64 * 9 * 64 * 32 + images * 81 * 32
    assert by_name["extraction"] == images * (9 * 81 * 4 + 36 * 25 * 16 + 144 * 9 * 64 + 576 * 64)
    trained = profile(block, [x.unflatten(0, (1, 4))], training=True, depth=0, runs=1, warmup=0)
    assert trained.training_macs is not None
    assert trained.training_macs > 2.5 * trained.macs


X = torch.zeros(4, 8, 8, 8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: SELFYBlock(8, window=(4, 9, 9)), ValueError, r"all odd, with U == V, not \(4, 9, 9\)"),
        (lambda: SELFYBlock(8, window=(5, 8, 8)), ValueError, "all odd"),
        (lambda: SELFYBlock(8, window=(5, 9, 11)), ValueError, "U == V"),
        (lambda: SELFYBlock(8, window=(5, 7, 7)), ValueError, "window of 7 to one cell: 9 or 11 is accepted"),
        (lambda: SELFYBlock(8, window=(5, 13, 13)), ValueError, "window of 13 to one cell: 9 or 11 is accepted"),
        (lambda: SELFYBlock(8, extraction_channels=(4, 4)), ValueError, "need one length"),
        (lambda: SELFYBlock(8, extraction_channels=()), ValueError, "extraction_channels are empty"),
        (lambda: SELFYBlock(0), ValueError, "channels has to be positive, not 0"),
        (lambda: SELFYBlock(8, hidden_channels=-1), ValueError, "hidden_channels has to be positive"),
        (lambda: SELFYBlock(8, integration_channels=(4, 0)), ValueError, r"integration_channels\[1\] has to be"),
        (lambda: SELFYBlock(8, extraction="lstm"), ValueError, "extraction is one of conv, softargmax, mlp, not"),
        (lambda: SELFYBlock(8, integration="sum"), ValueError, "integration is one of conv, mlp, spatial-mlp"),
        (lambda: tiny()(X, 3), ValueError, "4 frames in the batch are no multiple of num_frames=3"),
        (lambda: tiny()(X, 0), ValueError, "at least 1"),
        (lambda: tiny()(X), ValueError, "give num_frames"),
        (lambda: tiny()(X[:, :7], 2), ValueError, r"\(b\*t, 8, h, w\) or \(b, t, 8, h, w\), not \(4, 7, 8, 8\)"),
        (lambda: tiny()(X.unflatten(0, (2, 2)), 4), ValueError, "features have 2 frames, and num_frames is 4"),
        (lambda: tiny()(X.long(), 2), TypeError, "floating-point"),
        (lambda: selfynet("vgg"), ValueError, "backbones here are"),
        (lambda: selfynet("resnet18", num_frames=0), ValueError, "at least 1"),
        (lambda: insert_selfy(VideoResNet(3, "basic", (1,), stage_widths=(8,)), 4), ValueError, "layer2"),
        (lambda: OnTokens(tiny(), 0), ValueError, "at least 1"),
        (lambda: OnTokens(tiny(), 2)(torch.zeros(1, 14, 8)), ValueError, "2 frames of a square grid, not"),
        (lambda: OnTokens(tiny(), 2, (2, 3))(torch.zeros(1, 9, 8)), ValueError, "of a 2 x 3 grid, not"),
        (lambda: MeanClassAccuracy(0), ValueError, "at least 1"),
    ],
)
def test_bad_input(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_features_of_motion_squeeze_and_selfy_add_up() -> None:
    network = VideoResNet(
        3, "basic", (1, 1), stem_width=8, stage_widths=(8, 16), slot=MotionSqueeze(16, 4, 5, hidden=(4, 4))
    )
    insert_selfy(network, 4, "layer1", **TINY)
    network(torch.randn(1, 3, 4, 32, 32)).sum().backward()
