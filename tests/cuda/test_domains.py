"""On a GPU, where there is one, the methods give what they give on the CPU."""

import copy

import pytest
import torch

from saccade.action import (
    Motionformer,
    MotionSqueeze,
    SearchSettings,
    SELFYBlock,
    TrajectoryAttention,
    X3DSearchSpace,
    X3DSupernet,
    msnet,
    search_x3d,
    selfynet,
)
from saccade.graph import CorrectAndSmooth, Graph, LabelPropagation
from saccade.ops.correlation import local_correlation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(autouse=True)
def _exact() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("dilation", [1, 2])
def test_correlation_and_its_gradients(dilation: int) -> None:
    a, b = (torch.randn(2, 8, 9, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(2, 7, 7, 9, 11, dtype=torch.float64)
    here = torch.autograd.grad((local_correlation(a, b, 7, dilation) * weight).sum(), (a, b))
    moved = [x.detach().cuda().requires_grad_() for x in (a, b)]
    there = torch.autograd.grad((local_correlation(*moved, 7, dilation) * weight.cuda()).sum(), moved)
    for left, right in zip(here, there, strict=True):
        torch.testing.assert_close(right.cpu(), left)


def test_motion_squeeze_forward_and_backward() -> None:
    block = MotionSqueeze(16, reduced_channels=8, window=9).double().eval()
    moved, x = copy.deepcopy(block).cuda(), torch.randn(6, 16, 10, 12, dtype=torch.float64)
    torch.testing.assert_close(moved(x.cuda(), 3).cpu(), block(x, 3))
    moved.train()(x.cuda().requires_grad_(), 3).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in moved.parameters())


def test_msnet_trains_under_autocast() -> None:
    network = msnet("resnet18", num_frames=4, num_classes=5).cuda().train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits = network(torch.randn(2, 3, 4, 64, 64, device="cuda"))
    logits.float().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("extraction", ["conv", "softargmax", "mlp"])
@pytest.mark.parametrize("training", [True, False])
def test_selfy_forward_and_backward(extraction: str, training: bool) -> None:
    sizes = {"window": (3, 9, 9), "extraction_channels": (2, 3, 4, 5), "integration_channels": (5, 4, 4, 6)}
    block = SELFYBlock(16, 8, **sizes, extraction=extraction, scale=1.0).double().train(training)
    moved, x = copy.deepcopy(block).cuda(), torch.randn(6, 16, 9, 12, dtype=torch.float64)
    grads, outs = [], []
    for module, features in ((block, x), (moved, x.cuda())):
        features = features.requires_grad_()
        outs.append(module(features, 3))
        grads.append(torch.autograd.grad(outs[-1].square().sum(), [features, *module.parameters()]))
    torch.testing.assert_close(outs[1].cpu(), outs[0])
    for here, there in zip(*grads, strict=True):
        torch.testing.assert_close(there.cpu(), here)
    for here, there in zip(block.state_dict().values(), moved.state_dict().values(), strict=True):
        torch.testing.assert_close(there.cpu(), here)


def test_selfynet_trains_under_autocast() -> None:
    network = selfynet("resnet18", num_frames=4, num_classes=5, scale=1.0).cuda().train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits = network(torch.randn(2, 3, 4, 64, 64, device="cuda"))
    logits.float().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("mode", ["autoscale", "fixed"])
def test_correct_and_smooth(mode: str) -> None:
    edges = torch.randint(200, (2, 600))
    prob, labels = torch.rand(200, 5, dtype=torch.float64).softmax(1), torch.randint(5, (200,))
    known, method = torch.arange(60), CorrectAndSmooth(mode=mode)
    here = method(prob, labels, known, Graph(edges, 200))
    there = method(prob.cuda(), labels.cuda(), known.cuda(), Graph(edges, 200))
    torch.testing.assert_close(there.cpu(), here)
    spread = LabelPropagation()(labels.cuda(), known.cuda(), Graph(edges, 200))
    torch.testing.assert_close(spread.cpu(), LabelPropagation()(labels, known, Graph(edges, 200)))


@pytest.mark.parametrize("approximation", [None, "orthoformer", "nystrom", "performer"])
def test_trajectory_attention_forward_and_backward(approximation: str | None) -> None:
    block = TrajectoryAttention(24, 3, approximation=approximation, num_landmarks=6).double().eval()
    moved, x = copy.deepcopy(block).cuda(), torch.randn(2, 1 + 4 * 9, 24, dtype=torch.float64)
    torch.testing.assert_close(moved(x.cuda(), 4).cpu(), block(x, 4))
    moved(x.cuda().requires_grad_(), 4).sum().backward()
    block(x, 4).sum().backward()
    torch.testing.assert_close(moved.qkv.weight.grad.cpu(), block.qkv.weight.grad)


@pytest.mark.parametrize("attention", ["trajectory", "joint", "divided", "orthoformer"])
def test_video_transformers_train_under_autocast(attention: str) -> None:
    sizes = {"image_size": 32, "patch_size": 8, "frames": 4, "dim": 24, "depth": 2, "heads": 3, "num_landmarks": 8}
    model = Motionformer(**sizes, num_classes=5, attention=attention).cuda().train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits = model(torch.randn(2, 3, 4, 32, 32, device="cuda"))
    logits.float().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_supernet_and_its_derived_network() -> None:
    space = X3DSearchSpace(4, 32, groups=(2, 4, 6, 8), depths=(1, 2, 1, 1), stem=8, head=24, features=16, num_classes=5)
    here, clips = X3DSupernet(space).double(), torch.randn(3, 3, 4, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        for parameter in here.parameters():
            parameter.uniform_(-0.5, 0.5)
    there = copy.deepcopy(here).cuda()
    for row in space.space.sample(4):
        torch.testing.assert_close(there(clips.cuda(), row).cpu(), here(clips, row), atol=1e-8, rtol=1e-6)
        torch.testing.assert_close(
            there.extract(row).train()(clips.cuda()).cpu(), here(clips, row), atol=1e-8, rtol=1e-6
        )


def test_a_search_moves_to_the_gpu() -> None:
    space = X3DSearchSpace(4, 32, groups=(2, 4, 6, 8), depths=(1, 2, 1, 1), stem=8, head=24, features=16, num_classes=5)

    def batch(step: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(step)
        label = torch.randint(5, (4,), generator=draw)
        return {"video": torch.randn(4, 3, 4, 32, 32, generator=draw), "label": label}

    settings = SearchSettings(steps=6, lr=0.05, max_samples=3, joint_from=4)
    result = search_x3d(space, batch, lambda step: batch(100 + step), 1e6, settings, device="cuda")
    assert result.cost <= 1
    assert all(row["loss"] == row["loss"] for row in result.history)
