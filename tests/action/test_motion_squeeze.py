import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import saccade
from saccade.action.checkpoints import convert_motion_squeeze, convert_tsm
from saccade.action.motion_squeeze import MotionSqueeze, gaussian_weighted, kernel_soft_argmax, msnet
from saccade.checkpoints import load_strict
from saccade.nn.video_resnet import VideoResNet
from saccade.ops.correlation import local_correlation

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(saccade.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def plain(correlation: Tensor, sigma: float, temperature: float) -> tuple[Tensor, Tensor]:
    """The definition, position by position, in float64."""
    b, p, _, h, w = correlation.shape
    flow, confidence = torch.zeros(b, 2, h, w, dtype=torch.float64), torch.zeros(b, 1, h, w, dtype=torch.float64)
    grid = torch.arange(p, dtype=torch.float64)
    for n in range(b):
        for y in range(h):
            for x in range(w):
                m = correlation[n, :, :, y, x].double()
                best = int(m.argmax())
                i, j = best // p, best % p
                g = torch.exp(-((grid[:, None] - i) ** 2 + (grid[None] - j) ** 2) / (2 * sigma**2))
                weight = torch.softmax((g * m / temperature).flatten(), 0).view(p, p)
                flow[n, 0, y, x] = (weight * (grid[None] - p // 2)).sum() / (p // 2)
                flow[n, 1, y, x] = (weight * (grid[:, None] - p // 2)).sum() / (p // 2)
                confidence[n, 0, y, x] = m.max()
    return flow, confidence


@pytest.mark.parametrize(("window", "sigma", "temperature"), [(5, 5.0, 0.01), (7, 1.0, 0.1), (15, 3.0, 0.02)])
def test_soft_argmax_is_the_definition(window: int, sigma: float, temperature: float) -> None:
    correlation = torch.rand(2, window, window, 3, 2, dtype=torch.float64)
    ours = kernel_soft_argmax(correlation, sigma, temperature)
    torch.testing.assert_close(ours, plain(correlation, sigma, temperature))
    flat = kernel_soft_argmax(correlation.flatten(1, 2), sigma, temperature)
    torch.testing.assert_close(flat, ours)


def test_soft_argmax_gradients() -> None:
    correlation = torch.rand(1, 5, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: kernel_soft_argmax(m, 2.0, 0.1), (correlation,))


def test_far_displacements_keep_the_weight_of_a_zero_similarity() -> None:
    """The Gaussian multiplies similarities before the softmax, as in the paper, not the softmax's weights after it."""
    correlation = torch.zeros(1, 15, 15, 1, 1)
    correlation[0, 0, 0] = 0.01  # one weak match in the corner, temperature 0.01: e against 224 ones
    flow, _ = kernel_soft_argmax(correlation, sigma=0.5)
    expected = (torch.e - 1) * -1.0 / (224 + torch.e)
    torch.testing.assert_close(flow.flatten(), torch.full((2,), expected))


def test_flow_in_displacements_on_request() -> None:
    correlation = torch.rand(1, 7, 7, 2, 2)
    torch.testing.assert_close(
        kernel_soft_argmax(correlation, normalize=False)[0], 3 * kernel_soft_argmax(correlation)[0]
    )


def test_no_texture_gives_no_motion() -> None:
    flow, confidence = kernel_soft_argmax(torch.zeros(1, 5, 5, 3, 3))
    assert flow.abs().max() < 1e-6
    assert confidence.abs().max() == 0
    assert torch.equal(gaussian_weighted(torch.zeros(1, 3, 3, 1, 1))[0], torch.zeros(1, 3, 3, 1, 1))


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (3, -2), (-7, 7), (5, 0)])
def test_a_moved_map_gives_its_displacement(dy: int, dx: int) -> None:
    features = torch.randn(1, 64, 28, 28)
    correlation = F.relu(local_correlation(features, features.roll((dy, dx), (2, 3)), 15, normalize=True))
    flow, confidence = kernel_soft_argmax(correlation)
    inside = flow[0, :, 7:-7, 7:-7]
    torch.testing.assert_close(inside[0], torch.full_like(inside[0], dx / 7), atol=0.05, rtol=0)
    torch.testing.assert_close(inside[1], torch.full_like(inside[1], dy / 7), atol=0.05, rtol=0)
    assert confidence[0, 0, 7:-7, 7:-7].min() > 0.99


def test_dilation_searches_farther() -> None:
    features = torch.randn(1, 32, 24, 24)
    correlation = F.relu(local_correlation(features, features.roll(6, 3), 7, dilation=2, normalize=True))
    flow, _ = kernel_soft_argmax(correlation)  # 6 cells are 3 displacements, the radius
    torch.testing.assert_close(flow[0, 0, 6:-6, 6:-6], torch.ones(12, 12), atol=0.05, rtol=0)


@pytest.fixture
def block() -> MotionSqueeze:
    return MotionSqueeze(8, reduced_channels=8, window=5, hidden=(4, 6)).eval()


def test_it_adds_something_that_is_never_negative_and_repeats_the_last_pair(block: MotionSqueeze) -> None:
    x = torch.randn(6, 8, 7, 7)
    y, motion = block(x, 3, return_motion=True)
    added = (y - x).view(2, 3, 8, 7, 7)
    assert added.min() >= -1e-6
    torch.testing.assert_close(added[:, 1], added[:, 2])
    assert motion.flow.shape == (4, 2, 7, 7)
    assert motion.flow.abs().max() <= 1
    assert motion.confidence.min() >= 0
    torch.testing.assert_close(block(x, 3), y)


def test_clips_do_not_touch_each_other(block: MotionSqueeze) -> None:
    x = torch.randn(8, 8, 7, 7)
    torch.testing.assert_close(block(x, 4)[4:], block(x[4:], 4), atol=1e-6, rtol=1e-5)


def test_the_match_ignores_the_length_of_features(block: MotionSqueeze) -> None:
    x = 1 + torch.rand(4, 8, 7, 7)
    torch.testing.assert_close(block.motion(x, 2).flow, block.motion(5 * x, 2).flow, atol=1e-3, rtol=0)


def test_autocast_matches_in_float32(block: MotionSqueeze) -> None:
    x = torch.randn(4, 8, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        y, motion = block(x, 2, return_motion=True)
    assert motion.flow.dtype == torch.float32
    assert torch.isfinite(y).all()


def test_double_precision_and_gradients(block: MotionSqueeze) -> None:
    x = torch.randn(4, 8, 5, 5, dtype=torch.float64, requires_grad=True)
    y = block.double()(x, 2)
    y.sum().backward()
    assert y.dtype == torch.float64
    assert x.grad is not None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


COMPILE = """
import torch
from saccade.action import MotionSqueeze

block = MotionSqueeze(8, reduced_channels=8, window=5, hidden=(4, 6)).eval()
x = torch.randn(4, 8, 7, 7, requires_grad=True)
compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(compiled(x, 2), block(x, 2))
torch.testing.assert_close(
    torch.autograd.grad(compiled(x, 2).sum(), x), torch.autograd.grad(block(x, 2).sum(), x), atol=1e-4, rtol=1e-4
)
exported = torch.export.export(block, (x.detach(), 2))
torch.testing.assert_close(exported.module()(x.detach(), 2), block(x.detach(), 2))
"""


def test_compile_and_export() -> None:
    """In one graph, forward and backward; in a process of its own, for compilers do not trace the run-time checks."""
    done = subprocess.run([sys.executable, "-c", COMPILE], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_sizes_of_msnet_are_the_papers() -> None:
    model = msnet("resnet50")
    count = sum(p.numel() for p in model.parameters())
    plain = sum(p.numel() for p in VideoResNet(174).parameters())
    assert 0.06e6 < count - plain < 0.12e6  # the card: 24.6 M against 24.3 M with TSM's rounding
    assert (model.slot.reduce[0].in_channels, msnet("resnet18").slot.reduce[0].in_channels) == (512, 128)
    assert msnet("resnet18", shift=False).layer1[0].shift is None


def official(model: VideoResNet) -> dict[str, Tensor]:
    """Our weights under the keys of the authors' training files."""
    state = {}
    for key, value in model.state_dict().items():
        key = key.replace("slot.reduce", "chnl_reduction")
        for n in range(4):
            key = key.replace(f"slot.transform.{n}", f"flow_refinement.conv{n + 1}")
        if key.startswith("fc."):
            state[f"module.new_{key}"] = value[..., None] if key == "fc.weight" else value
        else:
            state[f"module.base_model.{key}"] = value
    state |= {f"module.base_model.bn2.{name}": torch.zeros(128) for name in ("weight", "bias", "running_mean")}
    return state


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_converter_takes_training_files(prefix: str) -> None:
    model = msnet("resnet18", num_classes=5)
    state = {key.replace("module.", prefix): value for key, value in official(model).items()}
    converted = convert_motion_squeeze(state)
    other = msnet("resnet18", num_classes=5)
    load_strict(other, converted)
    torch.testing.assert_close(other.state_dict(), model.state_dict())


def test_converter_refuses_unknown_and_missing_keys() -> None:
    model = msnet("resnet18", num_classes=5)
    state = official(model)
    with pytest.raises(ValueError, match=r"not known here: module\.base_model\.layer9"):
        convert_motion_squeeze({**state, "module.base_model.layer9.weight": torch.zeros(1)})
    del state["module.base_model.conv1.weight"]
    with pytest.raises(ValueError, match=r"missing: conv1\.weight"):
        load_strict(model, convert_motion_squeeze(state))


def test_tsm_keys_with_the_wrapper() -> None:
    converted = convert_tsm(
        {"module.base_model.layer1.0.conv1.net.weight": torch.zeros(1), "module.new_fc.weight": torch.zeros(3, 4)}
    )
    assert list(converted) == ["layer1.0.conv1.weight", "fc.weight"]


X = torch.zeros(4, 8, 7, 7)
BLOCK = MotionSqueeze(8, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MotionSqueeze(8, window=4), ValueError, "window has to be odd"),
        (lambda: MotionSqueeze(8, window=1), ValueError, "at least 3"),
        (lambda: MotionSqueeze(0), ValueError, "channels has to be positive"),
        (lambda: MotionSqueeze(8, sigma=0.0), ValueError, "sigma has to be positive"),
        (lambda: MotionSqueeze(8, temperature=-1.0), ValueError, "temperature has to be positive"),
        (lambda: MotionSqueeze(8, hidden=(4, 0)), ValueError, r"hidden\[1\] has to be positive"),
        (lambda: BLOCK(X, 1), ValueError, "two frames"),
        (lambda: BLOCK(X, 3), ValueError, "4 frames in the batch are no multiple of num_frames=3"),
        (lambda: BLOCK(X[:, :7], 2), ValueError, r"\(b\*t, 8, h, w\), not \(4, 7, 7, 7\)"),
        (lambda: BLOCK(X.long(), 2), TypeError, "floating-point"),
        (lambda: kernel_soft_argmax(X[:, :8]), ValueError, "odd p"),
        (lambda: kernel_soft_argmax(torch.zeros(1, 16, 2, 2)), ValueError, "odd p"),
        (lambda: kernel_soft_argmax(torch.zeros(1, 3, 5, 2, 2)), ValueError, "odd p"),
        (lambda: kernel_soft_argmax(torch.zeros(1, 9, 2, 2), sigma=0.0), ValueError, "sigma"),
        (lambda: kernel_soft_argmax(torch.zeros(1, 9, 2, 2), temperature=0.0), ValueError, "temperature"),
        (lambda: kernel_soft_argmax(torch.zeros(1, 9, 2, 2).long()), TypeError, "floating-point"),
        (lambda: msnet("resnet50", num_frames=1), ValueError, "two frames"),
        (lambda: msnet("vgg"), ValueError, "backbones here are"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
