from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import video

from saccade.nn.r2plus1d import Conv2Plus1D, R2Plus1D, R2Plus1DBlock, r2plus1d


def small(**options: object) -> R2Plus1D:
    return R2Plus1D(3, layers=(1, 1), stem_width=8, stem_middle=6, stage_widths=(8, 16), **options).eval()


def awake(model: nn.Module) -> None:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)


def test_torchvision_s_network_is_loaded_and_computes_the_same() -> None:
    torch.manual_seed(0)
    theirs = video.r2plus1d_18(num_classes=7).eval()
    awake(theirs)
    ours = r2plus1d("r2plus1d_18", 7).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_torchvision(theirs.state_dict())
    clips = torch.randn(1, 3, 4, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(clips), theirs(clips), atol=1e-5, rtol=1e-5)


def test_the_bottleneck_computes_torchvision_s() -> None:
    from torchvision.models.video.resnet import Bottleneck
    from torchvision.models.video.resnet import Conv2Plus1D as TheirConv

    down = nn.Sequential(nn.Conv3d(16, 32, 1, 2, bias=False), nn.BatchNorm3d(32))
    theirs = Bottleneck(16, 8, TheirConv, stride=2, downsample=down).eval()
    awake(theirs)
    ours = R2Plus1DBlock(16, 8, "bottleneck", 2).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 16, 4, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_another_number_of_classes_keeps_its_own_classifier() -> None:
    ours = small()
    before = R2Plus1D(5, layers=(1, 1), stem_width=8, stem_middle=6, stage_widths=(8, 16)).state_dict()
    kept = ours.fc.weight.clone()
    ours.load_torchvision(before)
    assert torch.equal(ours.fc.weight, kept)
    assert torch.equal(ours.stem[0].weight, before["stem.0.weight"])


def test_a_foreign_state_dict_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of this R"):
        small().load_torchvision(R2Plus1D(3, layers=(1,), stage_widths=(8,)).state_dict())


def test_split_convolutions_have_the_weights_of_one() -> None:
    split = Conv2Plus1D(64, 64, 144)
    assert sum(p.numel() for p in split[0].parameters()) + sum(p.numel() for p in split[3].parameters()) == 27 * 64**2


def test_gradients_of_a_block() -> None:
    block = R2Plus1DBlock(2, 3, stride=2).double().eval()
    assert torch.autograd.gradcheck(block, (torch.randn(1, 2, 2, 4, 4, dtype=torch.float64, requires_grad=True),))


def test_input_spec_and_shapes() -> None:
    model = small()
    assert (model.input_spec.size, model.input_spec.frames, model.input_spec.mean[0]) == (112, 16, 0.43216)
    assert model.clip_features(torch.randn(2, 3, 5, 32, 40)).shape == (2, 16, 3, 8, 10)


@pytest.mark.usefixtures("unchecked")
def test_compile_and_export() -> None:
    model, clips = small(), torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        wanted = model(clips)
        compiled = torch.compile(model, fullgraph=True, backend="eager")(clips)
        exported = torch.export.export(model, (clips,)).module()(clips)
    torch.testing.assert_close(compiled, wanted)
    torch.testing.assert_close(exported, wanted)


def test_bf16_autocast_trains() -> None:
    model = small().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(2, 3, 4, 32, 32)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: R2Plus1D(0), "num_classes"),
        (lambda: R2Plus1D(2, layers=(1, 1)), "one length"),
        (lambda: R2Plus1D(2, "dense"), "'basic' or 'bottleneck'"),
        (lambda: r2plus1d("r3d_18", 2), "r2plus1d_18, r2plus1d_34, r2plus1d_50"),
        (lambda: small()(torch.zeros(1, 1, 4, 32, 32)), r"\(b, 3, t, h, w\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("unchecked")
def test_uint8_is_refused_and_the_conversion_named() -> None:
    with pytest.raises(TypeError, match="divide by 255"):
        small()(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))
