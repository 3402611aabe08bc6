"""Every block goes into every backbone by one line, and gradients reach both.

A video transformer hands tokens on, which a wrapper turns into the maps that blocks know; the class token passes by.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from saccade.action import GlobalTemporalAttention, MotionSqueeze, SELFYBlock, insert_gta
from saccade.action.task import ActionClassification
from saccade.nn.on_clips import OnClips, OnTokens
from saccade.nn.r2plus1d import R2Plus1D
from saccade.nn.video_resnet import ResidualBlock, VideoResNet
from saccade.nn.video_vit import VideoTransformer
from saccade.nn.x3d import X3D
from saccade.surgery import get_module, insert_after

FRAMES = 4
BACKBONES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "tsn": (lambda: VideoResNet(3, "basic", (1, 1), stem_width=8, stage_widths=(8, 16), dropout=0.0), 8),
    "tsm": (lambda: VideoResNet(3, "bottleneck", (1, 1), stem_width=8, stage_widths=(8, 16), shift=8), 32),
    "r2plus1d": (lambda: R2Plus1D(3, layers=(1, 1), stem_width=8, stem_middle=6, stage_widths=(8, 16)), 8),
    "x3d": (lambda: X3D(FRAMES, 64, 1, 0.5, dim_c1=8, dim_c5=16, num_classes=3), 8),
}
TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    f"video transformer, {attention}": (
        lambda attention=attention: VideoTransformer(
            64, 16, 1, FRAMES, 16, 2, 2, 3, attention, num_landmarks=4, drop_path=0.0
        ),
        16,
    )
    for attention in ("trajectory", "joint", "divided")
}
BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "motion squeeze": lambda channels: MotionSqueeze(channels, 4, 5, hidden=(4, 4)),
    "global temporal attention": lambda channels: GlobalTemporalAttention(channels, FRAMES, regions=2, scale=1.0),
    "selfy": lambda channels: SELFYBlock(
        channels, 6, (3, 9, 9), extraction_channels=(2, 3, 4, 5), integration_channels=(5, 4, 4, 6), scale=1.0
    ),
    "shifted residual": lambda channels: ResidualBlock(channels, channels, shift=4),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("backbone", [*BACKBONES, *TRANSFORMERS])
def test_a_block_in_a_backbone(backbone: str, block: str) -> None:
    torch.manual_seed(0)
    tokens = backbone in TRANSFORMERS
    build, channels = (TRANSFORMERS if tokens else BACKBONES)[backbone]
    model, inserted = build(), BLOCKS[block](channels)
    keys, clips = set(model.state_dict()), torch.randn(2, 3, FRAMES, 64, 64)

    if tokens:
        undo = insert_after(model, "blocks.0", OnTokens(inserted, num_frames=FRAMES), example=clips)
    else:
        undo = insert_after(model, "layer1", OnClips(inserted, num_frames=FRAMES), example=clips)

    assert keys < set(model.state_dict())
    logits = model(clips)
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for part in (inserted, get_module(model, "head" if tokens else "fc")):
        grads = [parameter.grad for parameter in part.parameters()]
        assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads)
        assert any(bool(grad.any()) for grad in grads)
    undo()
    assert set(model.state_dict()) == keys


@pytest.mark.parametrize("backbone", BACKBONES)
def test_global_temporal_attention_finds_the_widths_of_every_backbone(backbone: str) -> None:
    model, clips = BACKBONES[backbone][0](), torch.randn(2, 3, FRAMES, 64, 64)
    insert_gta(model, FRAMES, stages=("layer1",), regions=2)
    model(clips).sum().backward()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_task_trains_every_backbone(backbone: str) -> None:
    task = ActionClassification(BACKBONES[backbone][0](), 3, classifier_lr=(5.0, 10.0))
    clips = torch.randn(2, 3, FRAMES, 64, 64)
    assert len(task.param_groups()) == 3
    torch.testing.assert_close(task.eval()(clips).sum(1), torch.ones(2))


def test_clips_are_folded_in_their_order() -> None:
    class Mark(nn.Module):
        def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
            return x + torch.arange(len(x)).view(-1, 1, 1, 1) * 10.0 + num_frames

    marked = OnClips(Mark())(torch.zeros(2, 1, 3, 1, 1)).flatten(1)
    assert marked.tolist() == [[3, 13, 23], [33, 43, 53]]


@pytest.mark.usefixtures("unchecked")
def test_bad_input() -> None:
    block = ResidualBlock(4, 4)
    with pytest.raises(ValueError, match="at least 1"):
        OnClips(block, 0)
    with pytest.raises(ValueError, match="give num_frames"):
        OnClips(block)(torch.zeros(4, 4, 2, 2))
    with pytest.raises(ValueError, match="no multiple"):
        OnClips(block, 3)(torch.zeros(4, 4, 2, 2))
    with pytest.raises(ValueError, match=r"\(b, c, t, h, w\)"):
        OnClips(block, 3)(torch.zeros(4, 4))
