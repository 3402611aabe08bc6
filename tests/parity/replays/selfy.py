"""Replays of the SELFY fixtures."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from saccade.action.checkpoints import convert_selfy, convert_selfy_block
from saccade.action.selfy import SELFYBlock, Transformation
from saccade.checkpoints import load_strict
from saccade.nn.video_resnet import VideoResNet
from tests.parity.fixtures import Fixture
from tests.parity.replays.motion_squeeze import keep_counters, ramp


def like(gradient: Tensor, weight: Tensor) -> Tensor:
    """A gradient in the shape of the authors' weight, with its axis of size 1."""
    return gradient.view(weight.shape)


def transformation(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    module = Transformation(config["d_in"], config["d_hid"], tuple(config["window"]))
    prefix = "stss_transformation."
    state = convert_selfy_block({prefix + key: value for key, value in fixture.weights.items()})
    inner = {key.removeprefix("transformation."): value for key, value in state.items()}
    load_strict(module, keep_counters(inner, module))
    module.train(config.get("mode", "eval") == "train")
    x = fixture.inputs["x"].requires_grad_()
    similarity = module(x, config["num_segments"])
    ours = {"out/stss": similarity.unsqueeze(4), "grad/x": x}
    ramp(ours["out/stss"]).backward()
    ours["grad/x"] = x.grad
    return ours | {f"grad/{name}": parameter.grad for name, parameter in module.named_parameters()}


def make_block(channels: int, config: dict[str, Any], hidden: int) -> SELFYBlock:
    return SELFYBlock(channels, hidden, tuple(config["window"]), config["ext_chnls"], config["int_chnls"])


def block(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    module = make_block(config["d_in"], config, config["d_hid"])
    load_strict(module, keep_counters(convert_selfy_block(fixture.weights), module))
    module.train(config["mode"] == "train")
    x, kept = fixture.inputs["x"].requires_grad_(), {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: kept.update({name: output})

    hooks = [getattr(module, name).register_forward_hook(keep(name)) for name in ("extraction", "integration")]
    y = module(x, config["num_segments"])
    for hook in hooks:
        hook.remove()
    ramp(y).backward()
    ours = {
        "out/y": y,
        "out/extracted": kept["extraction"].transpose(2, 3).flatten(0, 1),
        "out/integrated": kept["integration"],
        "grad/x": x.grad,
    }
    renamed = convert_selfy_block({key: torch.zeros(1, 1, 1) for key in fixture.weights})
    authors = dict(zip(renamed, fixture.weights, strict=True))
    grads = {authors[name]: parameter.grad for name, parameter in module.named_parameters()}
    return ours | {f"grad/{key}": like(grad, fixture.weights[key]) for key, grad in grads.items()}


def network(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    widths = config["stage_widths"]
    kind = "basic" if config["block"] == "BasicBlock" else "bottleneck"
    channels = widths[1] * (1 if kind == "basic" else 4)
    model = VideoResNet(
        config["classes"],
        kind,
        config["layers"],
        stem_width=config["stem_width"],
        stage_widths=widths,
        shift=8,
        slot=make_block(channels, config, config["selfy_hidden"]) if config.get("selfy", True) else None,
    ).eval()
    load_strict(model, keep_counters(convert_selfy(fixture.weights), model))
    frames, count = fixture.inputs["frames"], config["num_segments"]
    clips = frames.unflatten(0, (-1, count)).transpose(1, 2)
    return {"out/frame_logits": model.frame_logits(frames, count), "out/clip_logits": model(clips)}


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "stss_transformation": transformation,
    "selfy_block": block,
    "tsm_resnet_selfy": network,
}
