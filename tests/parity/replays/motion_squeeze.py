"""Replays of the MotionSqueeze fixtures."""

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.action.checkpoints import convert_motion_squeeze, convert_motion_squeeze_block
from saccade.action.motion_squeeze import MotionSqueeze, gaussian_weighted, kernel_soft_argmax
from saccade.checkpoints import load_strict
from saccade.nn.video_resnet import VideoResNet
from saccade.ops.correlation import local_correlation
from tests.parity.fixtures import Fixture


def ramp(x: Tensor) -> Tensor:
    return (x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum()


def correlation(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    a, b = (fixture.inputs[key].requires_grad_() for key in "ab")
    out = local_correlation(a, b, config["patch"], config["dilation_patch"])
    ramp(out).backward()
    matching = torch.relu(local_correlation(a.detach(), b.detach(), config["patch"], normalize=True))
    return {
        "out/correlation": out,
        "out/matching": matching.flatten(1, 2).flatten(2),
        "grad/a": a.grad,
        "grad/b": b.grad,
    }


def soft_argmax(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    assert config.get("topk", 1) == 1
    patch, height, width = config["patch"], config["height"], config["width"]
    match = fixture.inputs["match"].requires_grad_()
    volume = match.unflatten(2, (height, width)).unflatten(1, (patch, patch))
    weighted, _ = gaussian_weighted(volume, float(config.get("sigma", 5.0)))
    flow, confidence = kernel_soft_argmax(volume, float(config.get("sigma", 5.0)), 1 / config["temperature"])
    (flow[:, 0].sum() + 2 * flow[:, 1].sum()).backward()
    return {
        "out/weighted_match": weighted.flatten(1, 2).flatten(2),
        "out/flow_x": flow[:, :1].flatten(2),
        "out/flow_y": flow[:, 1:].flatten(2),
        "out/confidence": confidence,
        "grad/match": match.grad,
    }


def module(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    *hidden, channels = config["widths"]
    block = MotionSqueeze(
        channels, config["reduced"], config["patch"], float(config.get("sigma", 5.0)), 1 / config["temperature"], hidden
    )
    load_strict(block, keep_counters(convert_motion_squeeze_block(fixture.weights), block))
    block.train(config["mode"] == "train")
    x = fixture.inputs["x"].requires_grad_()
    y, motion = block(x, config["num_segments"], return_motion=True)
    ramp(y).backward()
    ours = {"out/y": y, "out/flow": motion.flow, "out/confidence": motion.confidence, "grad/x": x.grad}
    renamed = convert_motion_squeeze_block({key: torch.zeros(()) for key in fixture.weights})
    authors = dict(zip(renamed, fixture.weights, strict=True))
    return ours | {f"grad/{authors[name]}": p.grad for name, p in block.named_parameters()}


def network(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    widths = config["stage_widths"]
    kind = "basic" if config["block"] == "BasicBlock" else "bottleneck"
    channels = widths[1] * (1 if kind == "basic" else 4)
    state = convert_motion_squeeze(fixture.weights)
    hidden = [state[f"slot.transform.{n}.3.weight"].shape[0] for n in range(3)]
    model = VideoResNet(
        config["classes"],
        kind,
        config["layers"],
        stem_width=config["stem_width"],
        stage_widths=widths,
        shift=8,
        slot=MotionSqueeze(
            channels,
            config["reduced"],
            config["patch"],
            float(config.get("sigma", 5.0)),
            1 / config["temperature"],
            hidden,
        ),
    ).eval()
    load_strict(model, keep_counters(state, model))
    frames, count = fixture.inputs["frames"], config["num_segments"]
    clips = frames.unflatten(0, (-1, count)).transpose(1, 2)
    return {"out/frame_logits": model.frame_logits(frames, count), "out/clip_logits": model(clips)}


def keep_counters(state: dict[str, Tensor], module: torch.nn.Module) -> dict[str, Tensor]:
    """Fixtures leave out the batch norms' `num_batches_tracked`."""
    return {key: value for key, value in module.state_dict().items() if key.endswith("num_batches_tracked")} | state


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "correlation": correlation,
    "correlation_dilated": correlation,
    "kernel_soft_argmax": soft_argmax,
    "ms_module": module,
    "ms_module_train": module,
    "tsm_resnet_ms": network,
}
