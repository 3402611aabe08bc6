"""Weights of SlowFast and of PyTorchVideo, named by the tables of their repositories."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.action.checkpoints import convert_x3d
from saccade.checkpoints import load_strict, read_state
from saccade.nn.x3d import X3D

NAMES = {
    "expand": ("a", "conv_a"),
    "expand_norm": ("a_bn", "norm_a"),
    "depthwise": ("b", "conv_b"),
    "depthwise_norm": ("b_bn", "norm_b.0"),
    "attention.reduce": ("se.fc1", "norm_b.1.block.0"),
    "attention.expand": ("se.fc2", "norm_b.1.block.2"),
    "project": ("c", "conv_c"),
    "project_norm": ("c_bn", "norm_c"),
}
OUTSIDE = {
    "stem.spatial": ("s1.pathway0_stem.conv_xy", "blocks.0.conv.conv_t"),
    "stem.temporal": ("s1.pathway0_stem.conv", "blocks.0.conv.conv_xy"),
    "stem.norm": ("s1.pathway0_stem.bn", "blocks.0.norm"),
    "head.expand": ("head.conv_5", "blocks.5.pool.pre_conv"),
    "head.norm": ("head.conv_5_bn", "blocks.5.pool.pre_norm"),
    "head.embed": ("head.lin_5", "blocks.5.pool.post_conv"),
    "fc": ("head.projection", "blocks.5.proj"),
}


def authors(key: str, layout: int) -> str:
    """How SlowFast (0) or PyTorchVideo (1) calls one of our keys."""
    module, leaf = key.rsplit(".", 1)
    if module in OUTSIDE:
        return f"{OUTSIDE[module][layout]}.{leaf}"
    layer, index, inside = module.split(".", 2)
    stage = int(layer.removeprefix("layer"))
    at = f"s{stage + 1}.pathway0_res{index}" if layout == 0 else f"blocks.{stage}.res_blocks.{index}"
    shortcut = {"shortcut": ("branch1", "branch1_conv"), "shortcut_norm": ("branch1_bn", "branch1_norm")}
    name = shortcut[inside][layout] if inside in shortcut else f"branch2.{NAMES[inside][layout]}"
    return f"{at}.{name}.{leaf}"


def tiny() -> X3D:
    torch.manual_seed(0)
    model = X3D(4, 32, 1, 0.6, dim_c1=8, dim_c5=12, num_classes=3).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.1, 0.9)
    return model


@pytest.mark.parametrize("layout", [0, 1])
def test_a_checkpoint_round_trip(layout: int, tmp_path: Path) -> None:
    model = tiny()
    state = {authors(key, layout): value for key, value in model.state_dict().items()}
    assert len(state) == len(model.state_dict())
    path = tmp_path / "x3d.pyth"
    torch.save({"model_state": state}, path)
    other = tiny()
    load_strict(other, convert_x3d(read_state(path)))
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_a_shortcut_without_norm_gets_one_that_changes_nothing() -> None:
    model = tiny()
    state = {authors(key, 1): value for key, value in model.state_dict().items() if "layer1.0.shortcut_norm" not in key}
    load_strict(model, convert_x3d(state))
    x = torch.randn(1, 8, 2, 3, 3)
    torch.testing.assert_close(model.layer1[0].shortcut_norm(x), x)


def rename(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {key.replace(old, new): value for key, value in state.items()}


def test_strict() -> None:
    state = {authors(key, 0): value for key, value in tiny().state_dict().items()}
    with pytest.raises(ValueError, match="not known here"):
        convert_x3d(rename(state, "head.lin_5", "head.lin_6"))
    with pytest.raises(ValueError, match="not known here"):
        convert_x3d(rename(state, "branch2.b_bn", "branch2.q_bn"))
    with pytest.raises(ValueError, match="two keys"):
        convert_x3d(state | {authors(key, 1): value for key, value in tiny().state_dict().items()})
    del state["s1.pathway0_stem.bn.bias"]
    with pytest.raises(ValueError, match="missing"):
        load_strict(tiny(), convert_x3d(state))
