import pytest
import torch
import torchvision

from saccade.nn.video_resnet import ResidualBlock, VideoResNet, video_resnet


def small(**options: object) -> VideoResNet:
    return VideoResNet(3, "basic", (1, 1), stem_width=8, stage_widths=(8, 16), dropout=0.0, **options).eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_torchvision_network_is_loaded_and_computes_the_same(name: str) -> None:
    theirs = getattr(torchvision.models, name)(num_classes=7).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    ours = video_resnet(name, 7).eval()
    ours.load_torchvision(theirs.state_dict())
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.frame_logits(frames, 2), theirs(frames), atol=1e-4, rtol=1e-4)


def test_another_number_of_classes_keeps_its_own_classifier() -> None:
    ours = video_resnet("resnet18", 5)
    before = ours.fc.weight.clone()
    ours.load_torchvision(torchvision.models.resnet18().state_dict())
    assert torch.equal(ours.fc.weight, before)


def test_a_foreign_state_dict_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of this VideoResNet"):
        video_resnet("resnet18", 5).load_torchvision(torchvision.models.resnet34().state_dict())


def test_tsn_does_not_know_the_order_of_frames_and_tsm_does() -> None:
    clips = torch.randn(2, 3, 4, 32, 32)
    tsn, tsm = small(), small(shift=8)
    torch.testing.assert_close(tsn(clips), tsn(clips.flip(2)))
    assert not torch.allclose(tsm(clips), tsm(clips.flip(2)), atol=1e-5)


def test_clips_of_a_batch_do_not_touch_each_other() -> None:
    clips, model = torch.randn(3, 3, 4, 32, 32), small(shift=4)
    torch.testing.assert_close(model(clips)[1:2], model(clips[1:2]), atol=1e-5, rtol=1e-5)


def test_clip_logits_are_the_mean_of_frame_logits() -> None:
    clips, model = torch.randn(2, 3, 4, 32, 32), small(shift=8)
    frames = model.frame_logits(clips.transpose(1, 2).flatten(0, 1), 4)
    torch.testing.assert_close(model(clips), frames.view(2, 4, 3).mean(1))


def test_the_slot_sits_after_its_stage_and_is_told_the_frames() -> None:
    seen = []

    class Probe(torch.nn.Module):
        def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
            seen.append((tuple(x.shape), num_frames))
            return x

    small(slot=Probe(), slot_after=1)(torch.zeros(2, 3, 4, 32, 32))
    small(slot=Probe(), slot_after=2)(torch.zeros(2, 3, 4, 32, 32))
    assert seen == [((8, 8, 8, 8), 4), ((8, 16, 4, 4), 4)]


def test_every_second_block_is_shifted_on_request() -> None:
    model = VideoResNet(2, "basic", (3, 2), stage_widths=(8, 8), stem_width=8, shift=8, shift_every=2)
    assert [block.shift for block in model.layer1] == [8, None, 8]


def test_the_shortcut_is_not_shifted() -> None:
    block = ResidualBlock(8, 8, shift=8).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(4, 8, 3, 3)
    assert torch.equal(block(x, 4), x)


@pytest.mark.usefixtures("unchecked")
def test_compile_without_graph_breaks() -> None:
    model, clips = small(shift=8), torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.allclose(torch.compile(model, fullgraph=True, backend="eager")(clips), model(clips), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VideoResNet(0), "num_classes"),
        (lambda: VideoResNet(2, layers=(1, 1)), "one length"),
        (lambda: VideoResNet(2, slot=torch.nn.Identity(), slot_after=5), "stage from 1 to 4"),
        (lambda: VideoResNet(2, stem_kernel=4), "odd"),
        (lambda: video_resnet("vgg16", 2), "resnet18, resnet34, resnet50, resnet101"),
        (lambda: ResidualBlock(8, 8, "dense"), "'basic' or 'bottleneck'"),
        (lambda: small()(torch.zeros(1, 1, 4, 32, 32)), r"\(b, 3, t, h, w\)"),
        (lambda: small()(torch.zeros(3, 4, 32, 32)), r"\(b, 3, t, h, w\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("unchecked")
def test_uint8_is_refused_and_the_conversion_named() -> None:
    with pytest.raises(TypeError, match=r"divide by 255, subtract \(0.485"):
        small()(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))
