"""Global temporal attention: identities, symmetries that it breaks and others keep, and how it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.action.claims import GTA
from saccade.action.gta import (
    CrossChannelTemporalMixing,
    DotProductAttention,
    GlobalTemporalAttention,
    RegionMixing,
    gta_resnet,
    insert_gta,
)
from saccade.nn.video_resnet import VideoResNet, video_resnet
from saccade.training.cli import run
from saccade.training.task import Task
from tests.action import layouts


def block(**options: Any) -> GlobalTemporalAttention:
    torch.manual_seed(0)
    made = GlobalTemporalAttention(16, 4, inner_channels=8, heads=2, regions=3, scale=1.0, **options).double()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def video(frames: int = 4) -> Tensor:
    return torch.randn(2, 16, frames, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def mixing(**options: Any) -> CrossChannelTemporalMixing:
    torch.manual_seed(0)
    return CrossChannelTemporalMixing(4, 6, heads=3, **options).double()


def values() -> Tensor:
    return torch.randn(2, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_mixing_is_the_sum_over_heads_and_frames() -> None:
    part, v = mixing(), values()
    expected = torch.zeros_like(v)
    for i in range(3):
        for t in range(4):
            for j in range(3):
                for s in range(4):
                    weight = part.attention[i * 4 + t, j * 4 + s]
                    expected[:, t, :, 2 * i : 2 * i + 2] += weight * v[:, s, :, 2 * j : 2 * j + 2]
    torch.testing.assert_close(part(v), expected)


def test_the_identity_changes_nothing_and_a_shift_moves_frames() -> None:
    part, v = mixing(), values()
    with torch.no_grad():
        part.attention.copy_(torch.eye(12))
    torch.testing.assert_close(part(v), v)
    with torch.no_grad():
        part.attention.copy_(torch.kron(torch.eye(3), torch.eye(4).roll(1, 0)))
    torch.testing.assert_close(part(v), v.roll(1, dims=1))


def test_rows_of_the_softmax_are_convex_and_heads_apart_stay_apart() -> None:
    weights = mixing(normalization="softmax").weights()
    torch.testing.assert_close(weights.sum(1), torch.ones(12, dtype=torch.float64))
    apart, v = mixing(normalization="softmax", cross_channel=False), values()
    other = v.clone()
    other[..., 2:] = 0
    torch.testing.assert_close(apart(v)[..., :2], apart(other)[..., :2])
    assert not torch.allclose(mixing()(v)[..., :2], mixing()(other)[..., :2])


def test_frames_permute_only_together_with_the_matrix() -> None:
    part, v, order = mixing(), values(), torch.tensor([2, 0, 3, 1])
    plain = part(v)
    assert not torch.allclose(part(v[:, order]), plain[:, order])
    rows = (torch.arange(3).unsqueeze(1) * 4 + order).flatten()
    with torch.no_grad():
        part.attention.copy_(part.attention[rows][:, rows].clone())
    torch.testing.assert_close(part(v[:, order]), plain[:, order])


@pytest.mark.parametrize(("temporal", "tells"), [("dot", False), ("joint", False), ("global", True)])
def test_only_the_learnt_matrix_tells_a_clip_from_its_reversal(temporal: Any, tells: bool) -> None:
    network = gta_resnet("resnet18", 5, 4, options={"temporal": temporal, "scale": 1.0}).eval()
    clip = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        change = (network(clip) - network(clip.flip(2))).abs().max()
    assert (change > 1e-3) == tells
    if not tells:
        assert change < 1e-5


@pytest.mark.parametrize("over", ["space", "time", "joint"])
def test_attention_is_that_of_each_frame_place_or_clip(over: Any) -> None:
    torch.manual_seed(0)
    part = DotProductAttention(6, 4, over, scale=1.0).double().eval()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    q, k, v = part.query(x), part.key(x), part.value(x)
    out = torch.zeros(2, 3, 5, 4, dtype=torch.float64)
    for t in range(3):
        for p in range(5):
            seen = {"space": (t, slice(None)), "time": (slice(None), p), "joint": (slice(None), slice(None))}[over]
            keys, own = k[:, seen[0], seen[1]].reshape(2, -1, 4), v[:, seen[0], seen[1]].reshape(2, -1, 4)
            share = ((keys @ q[:, t, p].unsqueeze(2)).squeeze(2) / 2).softmax(1)
            out[:, t, p] = (share.unsqueeze(2) * own).sum(1)
    torch.testing.assert_close(part(x), part.norm(part.proj(out).flatten(0, 2)).view(2, 3, 5, 6))


def test_a_fresh_block_is_the_identity() -> None:
    made = GlobalTemporalAttention(16, 4).double().eval()
    torch.testing.assert_close(made(video()), video())


def test_folded_frames_are_the_same_clip() -> None:
    made, x = block(), video()
    folded = made(x.transpose(1, 2).flatten(0, 1), num_frames=4)
    torch.testing.assert_close(folded.unflatten(0, (2, 4)).transpose(1, 2), made(x))
    torch.testing.assert_close(made(x[:1]), made(x)[:1])


def test_regions_share_out_every_place() -> None:
    made = block()
    assert isinstance(made.region, RegionMixing)
    share = made.region.assignment(video().flatten(3).permute(0, 2, 3, 1))
    torch.testing.assert_close(share.sum(3), torch.ones(2, 4, 15, dtype=torch.float64))


@pytest.mark.parametrize("parts", [{"spatial": False}, {"pixel": False}, {"region": False}])
def test_parts_can_be_left_out(parts: dict[str, bool]) -> None:
    made = block(**parts)
    assert {name for name in ("spatial", "pixel", "region") if getattr(made, name) is None} == set(parts)
    assert made(video()).shape == video().shape


def test_gradients_are_those_of_finite_differences() -> None:
    made = block().train()
    x = video()[:, :, :, :2, :2].requires_grad_()
    assert torch.autograd.gradcheck(made, (x,), atol=1e-4)


def test_resizing_keeps_the_sums_of_rows_and_the_old_length() -> None:
    part = mixing()
    longer = part.resized(7)
    old, new = part.attention.view(3, 4, 3, 4).sum(3), longer.attention.view(3, 7, 3, 7).sum(3)
    torch.testing.assert_close(new[:, [0, 6]], old[:, [0, 3]])
    torch.testing.assert_close(longer.resized(7).attention, longer.attention)
    made = block()
    with pytest.raises(ValueError, match=r"6 frames, .* made for 4: `resized\(6\)`"):
        made(video(6))
    assert made.resized(6)(video(6)).shape == video(6).shape


@pytest.mark.parametrize(("name", "every", "count"), [("resnet50", 2, 5), ("resnet50", None, 2), ("resnet18", 1, 4)])
def test_blocks_are_inserted_by_one_line(name: str, every: int | None, count: int) -> None:
    network = video_resnet(name, 5)
    before = set(network.state_dict())
    cuts = insert_gta(network, num_frames=2, every=every)
    assert len(cuts) == count
    added = set(network.state_dict()) - before
    assert before <= set(network.state_dict())
    assert all(".gta." in key for key in added)
    network(torch.randn(1, 3, 2, 32, 32)).sum().backward()
    for cut in cuts:
        cut()
    assert set(network.state_dict()) == before


def test_image_weights_go_under_the_blocks() -> None:
    from torchvision.models import resnet18

    image = resnet18(weights=None)
    network = gta_resnet("resnet18", 5, 2)
    network.load_torchvision(image.state_dict())
    torch.testing.assert_close(network.state_dict()["layer2.1.conv1.weight"], image.layer2[1].conv1.weight.detach())


def test_the_matrices_take_no_weight_decay() -> None:
    class Training(Task):
        def __init__(self) -> None:
            super().__init__(lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=0.5))
            self.backbone = block()

    optimizer = Training().configure_optimizers()
    exempt = [p for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]]
    assert [tuple(p.shape) for p in exempt] == [(8, 8), (8, 8)]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(block().parameters()))


def test_it_compiles_and_exports(unchecked: None) -> None:
    made = GlobalTemporalAttention(8, 2, scale=1.0).eval()
    x = torch.randn(1, 8, 2, 4, 4)
    torch.testing.assert_close(torch.compile(made, fullgraph=True, backend="eager")(x), made(x))
    torch.testing.assert_close(torch.export.export(made, (x,)).module()(x), made(x))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(made(x).float(), made(x.float()).float(), atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: CrossChannelTemporalMixing(4, 6, heads=4), ValueError, "multiple of heads, not 6 with 4"),
        (lambda: CrossChannelTemporalMixing(0, 6, heads=2), ValueError, "at least 1"),
        (lambda: CrossChannelTemporalMixing(4, 6, 2, True, "none"), ValueError, "linear, softmax, not 'none'"),  # type: ignore[arg-type]
        (lambda: GlobalTemporalAttention(8, 4, temporal="x"), ValueError, "global, dot, joint, not 'x'"),  # type: ignore[arg-type]
        (lambda: GlobalTemporalAttention(8, 4, temporal="dot", pixel=False), ValueError, "pixel cannot be off"),
        (lambda: GlobalTemporalAttention(8, 4, regions=0), ValueError, "regions have to be at least 1"),
        (lambda: GlobalTemporalAttention(8, 4, spatial=False, pixel=False, region=False), ValueError, "all off"),
        (lambda: block()(torch.randn(2, 16, 4)), ValueError, r"\(b, 16, t, h, w\)"),
        (lambda: block()(torch.zeros(2, 16, 4, 3, 3, dtype=torch.long)), TypeError, "floating-point"),
        (lambda: block()(torch.randn(7, 16, 3, 3).double()), ValueError, "multiple of 4"),
        (lambda: insert_gta(video_resnet("resnet18", 5), 4, every=0), ValueError, "at least 1"),
        (lambda: insert_gta(video_resnet("resnet18", 5), 4, ("layer9",)), ValueError, "layer9"),
    ],
)
def test_bad_input(call: Any, kind: type[Exception], message: str, unchecked: None) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["ssv1", "ssv2", "kinetics"])
def test_recipes_run_on_a_miniature(tmp_path: Path, layout: str) -> None:
    root = layouts.LAYOUTS[layout](tmp_path / "data")
    arguments = [
        "--config", f"action/gta-{layout}", f"--folder={tmp_path}", f"--data.init_args.root={root}",
        "--model.init_args.pretrained=null", "--model.init_args.backbone.init_args.backbone=resnet18",
        "--model.init_args.backbone.init_args.num_frames=4", "--data.init_args.size=32", "--data.init_args.frames=4",
        "--data.init_args.batch_size=2", "--data.init_args.num_workers=0", "--trainer.accelerator=cpu",
        "--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    ]  # fmt: skip
    cli = run("fit", arguments)
    assert isinstance(cli.model.backbone, VideoResNet)
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])


def test_the_claim_names_its_ceiling() -> None:
    assert {expectation.arm for expectation in GTA.expectations if hasattr(expectation, "at_most")} == {"dot", "joint"}
