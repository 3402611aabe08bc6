"""Replays of the X3D fixtures, which lie among those of Auto-X3D."""

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.action.checkpoints import convert_x3d
from saccade.checkpoints import load_strict
from saccade.nn.x3d import X3D, X3DBlock
from tests.parity.fixtures import Fixture
from tests.parity.replays.motion_squeeze import keep_counters, ramp


def block(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    ours = X3DBlock(
        config["dim_in"],
        config["dim_out"],
        config["dim_inner"],
        (config["temporal_kernel"], 3, 3),
        config["stride"],
        config["squeeze_excitation"],
    ).eval()
    state = convert_x3d(fixture.weights)
    load_strict(ours, keep_counters(state, ours))
    x = fixture.inputs["x"].requires_grad_()
    y = ours(x)
    ramp(y).backward()
    authors = dict(zip(state, fixture.weights, strict=True))
    named = {f"grad/{authors[name]}": parameter.grad for name, parameter in ours.named_parameters()}
    return {"out/y": y, "grad/x": x.grad} | named


def network(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    state = convert_x3d(fixture.weights)
    depths = [len({key.split(".")[1] for key in state if key.startswith(f"layer{n}.")}) for n in range(1, 5)]
    stages = [state[f"layer{n}.0.project.weight"].shape[0] for n in range(1, 5)]
    model = X3D(
        config["frames"],
        config["crop"],
        config["width_factor"],
        config["depth_factor"],
        config["bottleneck_factor"],
        config["dim_c1"],
        config["dim_c5"],
        config["classes"],
        widths=[state["stem.spatial.weight"].shape[0], *stages],
        depths=depths,
        norm_embed="head.embed_norm.weight" in state,
    ).eval()
    load_strict(model, keep_counters(state, model))
    video = fixture.inputs["video"]
    maps = {}
    x = model.stem(video)
    for n in range(1, 5):
        x = getattr(model, f"layer{n}")(x)
        maps[f"out/s{n + 1}"] = x
    logits = model(video)
    return maps | {"out/logits": logits, "out/probs": torch.softmax(logits, 1)}


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "x3d_block": block,
    "x3d_slowfast": network,
    "x3d_pytorchvideo": network,
}
