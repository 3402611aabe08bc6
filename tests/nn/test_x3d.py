from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.clip_convolutions import DepthwiseConv3d, PointwiseConv3d, SpatialConv3d, TemporalConv3d
from saccade.nn.x3d import (
    X3D,
    X3DBlock,
    round_width,
    x3d_l,
    x3d_m,
    x3d_s,
    x3d_xs,
)


def small(**options: object) -> X3D:
    """Tiny, with norms that do something."""
    settings = {"depth_factor": 0.6, "dim_c1": 4, "width_factor": 1.0, "dim_c5": 12, "num_classes": 3, "dropout": 0.0}
    model = X3D(4, 64, **(settings | options)).eval()
    awake(model)
    return model


def awake(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                for values in (module.weight, module.running_var):
                    values.uniform_(0.5, 1.5, generator=generator)
                for values in (module.bias, module.running_mean):
                    values.normal_(0, 0.2, generator=generator)


def plain(model: X3D, clips: Tensor) -> Tensor:
    """The network written out with nothing but the weights and grouped 3D convolutions."""
    state = model.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], False, 0.0, 1e-5)

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        w = state[f"{name}.weight"]
        padding = [side // 2 for side in w.shape[2:]]
        groups = x.shape[1] // w.shape[1]
        return F.conv3d(x.contiguous(), w, state.get(f"{name}.bias"), (1, stride, stride), padding, groups=groups)

    x = F.relu(norm(conv(conv(clips, "stem.spatial", 2), "stem.temporal"), "stem.norm"))
    for stage in range(1, 5):
        for i in range(len(getattr(model, f"layer{stage}"))):
            at, stride = f"layer{stage}.{i}", 2 if i == 0 else 1
            y = F.relu(norm(conv(x, f"{at}.expand"), f"{at}.expand_norm"))
            y = norm(conv(y, f"{at}.depthwise", stride), f"{at}.depthwise_norm")
            if i % 2 == 0:
                gate = F.relu(conv(y.mean((2, 3, 4), keepdim=True), f"{at}.attention.reduce"))
                y = y * conv(gate, f"{at}.attention.expand").sigmoid()
            y = norm(conv(F.silu(y), f"{at}.project"), f"{at}.project_norm")
            x = F.relu(y + (norm(conv(x, f"{at}.shortcut", stride), f"{at}.shortcut_norm") if i == 0 else x))
    x = F.relu(norm(conv(x, "head.expand"), "head.norm")).mean((2, 3, 4), keepdim=True)
    return F.relu(conv(x, "head.embed")).flatten(1) @ state["fc.weight"].T + state["fc.bias"]


def test_it_computes_the_plain_formulation() -> None:
    model, clips = small().double(), torch.randn(2, 3, 4, 64, 64, dtype=torch.float64)
    reference = plain(model, clips)
    assert reference.std() > 1e-4
    torch.testing.assert_close(model(clips), reference, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(model.fused()(clips), reference, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(model.float()(clips.float()).double(), reference, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        PointwiseConv3d(6, 8),
        PointwiseConv3d(6, 8, 2, bias=True),
        SpatialConv3d(6, 8),
        TemporalConv3d(6),
        DepthwiseConv3d(6, (3, 3, 3)),
        DepthwiseConv3d(6, (1, 3, 3)),
        DepthwiseConv3d(6, (9, 3, 5)),
        DepthwiseConv3d(6, (3, 3, 3), 2),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{'x'.join(map(str, layer.kernel_size))}-{layer.stride[1]}",
)
def test_the_fast_convolutions_are_convolutions(layer: nn.Conv3d) -> None:
    layer = layer.double()
    x = torch.randn(2, 6, 3, 7, 5, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), nn.Conv3d.forward(layer, x)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    inputs = (x, layer.weight)
    torch.testing.assert_close(torch.autograd.grad(ours, inputs, weight), torch.autograd.grad(theirs, inputs, weight))


def test_gradients_of_a_block() -> None:
    block = X3DBlock(3, 4, 6, stride=2).double().eval()
    awake(block)
    x = torch.randn(1, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


def test_clips_of_a_batch_do_not_touch_each_other() -> None:
    model, clips = small(), torch.randn(3, 3, 4, 64, 64)
    torch.testing.assert_close(model(clips)[1:2], model(clips[1:2]), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "frames", "size", "stride", "millions"),
    [(x3d_xs, 4, 160, 12, 3.794), (x3d_s, 13, 160, 6, 3.794), (x3d_m, 16, 224, 5, 3.794), (x3d_l, 16, 312, 5, 6.153)],
)
def test_the_released_family(build: Callable[[], X3D], frames: int, size: int, stride: int, millions: float) -> None:
    with torch.device("meta"):
        model = build()
    spec = model.input_spec
    assert (spec.frames, spec.size, spec.stride, spec.mean[0], spec.std[0]) == (frames, size, stride, 0.45, 0.225)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)
    with torch.no_grad():
        assert model(torch.empty(2, 3, frames, size, size, device="meta")).shape == (2, 400)


def test_frames_are_never_merged_before_the_head() -> None:
    assert small().clip_features(torch.randn(1, 3, 5, 64, 96)).shape == (1, 32, 5, 2, 3)


def test_larger_clips_are_seen_in_every_place() -> None:
    model, clips = small(), torch.randn(2, 3, 4, 64, 96)
    windows = model.head(model.clip_features(clips), (4, 2, 2))
    assert windows.shape == (2, 12, 1, 1, 2)
    by_place = torch.stack([model.fc(windows[..., i].flatten(1)).softmax(1) for i in range(2)])
    torch.testing.assert_close(model(clips).softmax(1), by_place.mean(0))
    assert model.train()(clips).shape == (2, 3)


def test_the_first_frame_reaches_the_last() -> None:
    model, clips = small(), torch.randn(1, 3, 4, 64, 64)
    changed = clips.clone()
    changed[:, :, 0] += 1
    ahead, behind = model.clip_features(clips), model.clip_features(changed)
    assert not torch.allclose(ahead[:, :, 3], behind[:, :, 3])


def test_a_new_block_is_the_identity() -> None:
    x = torch.rand(1, 8, 2, 4, 4)
    assert torch.equal(X3DBlock(8, 8, 18).eval()(x), x)


def test_widths_are_rounded_as_the_authors_round() -> None:
    assert [round_width(width) for width in (1, 11.9, 12, 13.5, 27, 96)] == [8, 16, 16, 16, 32, 96]
    assert small().layer4[0].project.out_channels == 32
    assert X3D(4, 32, depth_factor=0.1, widths=(8, 8, 8, 16, 24)).head.expand.in_channels == 24


@pytest.mark.usefixtures("unchecked")
def test_compile_and_export() -> None:
    model, clips = small(), torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        wanted = model(clips)
        compiled = torch.compile(model, fullgraph=True, backend="eager")(clips)
        exported = torch.export.export(model, (clips,)).module()(clips)
    torch.testing.assert_close(compiled, wanted)
    torch.testing.assert_close(exported, wanted)


def test_bf16_autocast_trains() -> None:
    model, clips = small().train(), torch.randn(2, 3, 4, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(clips).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: X3D(4, 31), "at least 32"),
        (lambda: X3D(0, 64), "frames, num_classes"),
        (lambda: X3D(4, 64, depth_factor=0.0), "positive"),
        (lambda: X3D(4, 64, widths=(8, 8)), "stem and four stages"),
        (lambda: X3DBlock(8, 8, 16, (2, 3, 3)), "odd sides"),
        (lambda: X3DBlock(8, 8, 0), "at least 1"),
        (lambda: small()(torch.zeros(1, 1, 4, 64, 64)), r"\(b, 3, t, h, w\)"),
        (lambda: small()(torch.zeros(3, 4, 64, 64)), r"\(b, 3, t, h, w\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("unchecked")
def test_uint8_is_refused_and_the_conversion_named() -> None:
    with pytest.raises(TypeError, match=r"divide by 255, subtract \(0.45, 0.45, 0.45\)"):
        small()(torch.zeros(1, 3, 4, 64, 64, dtype=torch.uint8))
