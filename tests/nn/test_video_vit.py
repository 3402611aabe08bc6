import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.nn.video_vit import ATTENTIONS, DropPath, VideoTransformer, resize_positions

TINY = {"image_size": 32, "patch_size": 8, "frames": 4, "dim": 24, "depth": 2, "heads": 3, "num_classes": 5}


def model(**options: object) -> VideoTransformer:
    torch.manual_seed(0)
    return VideoTransformer(**{**TINY, "num_landmarks": 4, **options}).eval()


def image_vit(**options: object) -> torch.nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
    vit = timm.models.VisionTransformer(**{**sizes, **options}).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit


@pytest.mark.parametrize("attention", ["joint", "divided", "trajectory"])
def test_one_frame_by_joint_attention_is_timms_transformer(attention: str) -> None:
    vit, image = image_vit(), torch.randn(3, 3, 32, 32)
    ours = model(attention=attention, frames=1, tubelet=1, pre_logits=False)
    ours.load_image_vit(vit.state_dict())
    same = torch.allclose(ours.features(image[:, :, None]), vit.forward_features(image)[:, 0], atol=1e-4)
    assert same == (attention == "joint")  # the others look over time too, with weights that an image model lacks


def test_inflation_puts_the_image_into_the_middle_frame() -> None:
    vit, video = image_vit(), torch.randn(2, 3, 4, 32, 32)
    ours = model()
    ours.load_image_vit(vit.state_dict())
    embedded = ours.embed(video)[:, 1:].unflatten(1, (2, 16))
    for time, frame in enumerate((1, 3)):  # tubelets of two frames: the second counts
        cells = vit.patch_embed(video[:, :, frame]) + vit.pos_embed[:, 1:]
        torch.testing.assert_close(embedded[:, time], cells)
    assert ours.temp_embed.abs().max() == 0
    assert torch.equal(ours.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight)
    torch.testing.assert_close(ours.embed(video)[:, :1], (vit.cls_token + vit.pos_embed[:, :1]).expand(2, -1, -1))


def test_what_an_image_model_lacks_stays() -> None:
    for attention, part in (("trajectory", "attn.proj_kv.weight"), ("divided", "timeattn.qkv.weight")):
        ours = model(attention=attention)
        before = ours.blocks[0].get_parameter(part).clone()
        head = ours.head.weight.clone()
        ours.load_image_vit(image_vit().state_dict())
        assert torch.equal(ours.blocks[0].get_parameter(part), before)
        assert torch.equal(ours.head.weight, head)
    joint = model(pos_embed="joint")
    vit = image_vit()
    joint.load_image_vit(vit.state_dict())
    torch.testing.assert_close(joint.st_embed[:, 1:17], vit.pos_embed[:, 1:])
    torch.testing.assert_close(joint.st_embed[:, 17:], vit.pos_embed[:, 1:])


def test_positions_of_another_grid_are_resized() -> None:
    vit = image_vit(img_size=48)
    ours = model()
    ours.load_image_vit(vit.state_dict())
    table = vit.pos_embed[:, 1:].view(1, 6, 6, 24).permute(0, 3, 1, 2)
    expected = F.interpolate(table, size=(4, 4), mode="bicubic", align_corners=False).flatten(2).mT
    torch.testing.assert_close(ours.pos_embed[:, 1:], expected)
    rows = torch.arange(9.0).div(3, rounding_mode="floor").view(1, 9, 1)
    wide = resize_positions(rows, (3, 6)).view(3, 6)  # rows stay rows
    torch.testing.assert_close(wide, wide[:, :1].expand(3, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"rope": torch.zeros(1)}, "rope missing or extra"),
        (lambda state: {k: v for k, v in state.items() if k != "norm.bias"}, r"norm\.bias missing or extra"),
        (lambda state: state | {"norm.bias": torch.zeros(25)}, r"norm\.bias shaped otherwise"),
        (
            lambda state: state | {"patch_embed.proj.weight": torch.zeros(24, 3, 4, 4)},
            "weight shaped",
        ),
        (lambda state: state | {"pos_embed": torch.zeros(1, 16, 24)}, "pos_embed shaped otherwise"),
    ],
)
def test_other_state_dicts_are_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        model().load_image_vit(change(image_vit().state_dict()))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_attention_trains(attention: str) -> None:
    ours, video = model(attention=attention, drop_path=0.3).train(), torch.randn(2, 3, 4, 32, 32)
    loss = F.cross_entropy(ours(video), torch.tensor([1, 2]))
    loss.backward()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("attention", ["joint", "divided", "trajectory"])
def test_clips_do_not_mix_and_time_matters_once_its_table_is_learnt(attention: str) -> None:
    ours, video = model(attention=attention), torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(ours(video[:1]), ours(video)[:1])
    tubelets = video.unflatten(2, (2, 2)).flip(2).flatten(2, 3)
    torch.testing.assert_close(ours(tubelets), ours(video), atol=1e-5, rtol=1e-4)  # zero at the start: no order
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert (ours(tubelets) - ours(video)).abs().max() > 1e-3


def test_other_sizes_of_clips() -> None:
    assert model()(torch.randn(1, 3, 4, 48, 24)).shape == (1, 5)
    assert model().tokens(torch.randn(1, 3, 4, 48, 24)).shape == (1, 1 + 2 * 6 * 3, 24)


def test_several_classifiers() -> None:
    ours = model(num_classes={"verb": 4, "noun": 6})
    video = torch.randn(2, 3, 4, 32, 32)
    said = ours(video)
    assert {name: x.shape for name, x in said.items()} == {"verb": (2, 4), "noun": (2, 6)}
    torch.testing.assert_close(said["noun"], ours.head["noun"](ours.features(video)))


def test_initialisation() -> None:
    ours = VideoTransformer(32, 8, frames=4, dim=96, depth=2, heads=3, num_classes=5, attention="trajectory")
    for layer in (ours.blocks[0].attn.qkv, ours.blocks[1].attn.proj_kv, ours.blocks[0].mlp.fc1):
        assert 0.017 < float(layer.weight.detach().std()) < 0.023
        assert layer.bias.abs().max() == 0
    assert ours.temp_embed.abs().max() == 0
    assert [block.drop_path.rate for block in ours.blocks] == pytest.approx([0.0, 0.2])
    assert {module.eps for module in ours.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


def test_drop_path_keeps_the_mean() -> None:
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 2))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(out[:, 0], out[:, 1])
    assert abs(float(out.mean()) - 1) < 0.05


def test_autocast() -> None:
    ours, video = model(), torch.randn(1, 3, 4, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ours(video)
    torch.testing.assert_close(low.float(), ours(video), atol=0.02, rtol=0.05)


def clip(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(*shape, dtype=dtype)


BAD = [
    (ValueError, lambda: model(image_size=30), "image_size has to be a multiple of patch_size, not 30 with 8"),
    (ValueError, lambda: model(frames=3), "frames has to be a multiple of tubelet, not 3 with 2"),
    (ValueError, lambda: model(depth=0), "depth"),
    (ValueError, lambda: model(attention="global"), "attention is one of trajectory, joint, divided, orthoformer"),
    (ValueError, lambda: model(pos_embed="none"), "pos_embed"),
    (ValueError, lambda: model(num_classes=0), "num_classes"),
    (ValueError, lambda: model(num_classes={}), "num_classes"),
    (ValueError, lambda: model(heads=5), "multiple of num_heads"),
    (ValueError, lambda: model(drop_path=1.0), "DropPath"),
    (TypeError, lambda: model()(clip(1, 3, 4, 32, 32, dtype=torch.uint8)), "floating-point and normalised"),
    (ValueError, lambda: model()(clip(3, 4, 32, 32)), r"clips have to be \(b, 3, t, h, w\)"),
    (ValueError, lambda: model()(clip(1, 1, 4, 32, 32)), r"clips have to be \(b, 3, t, h, w\)"),
    (ValueError, lambda: model()(clip(1, 3, 5, 32, 32)), "4 frames, tubelets of 2, not 5"),
    (ValueError, lambda: model()(clip(1, 3, 4, 32, 30)), "multiples of 8, not 32 x 30"),
    (ValueError, lambda: model(pos_embed="joint")(clip(1, 3, 4, 40, 32)), "joint positions"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("kind", "call", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_input(kind: type[Exception], call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=message):
        call()
