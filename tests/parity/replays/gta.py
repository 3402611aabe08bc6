"""Replays of the reference of GTA's equations."""

import torch
from torch import Tensor

from saccade.action.gta import CrossChannelTemporalMixing, GlobalTemporalAttention, RegionMixing
from saccade.checkpoints import load_strict
from tests.parity.fixtures import Fixture


def cross_channel_mixing(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    results = {}
    for name in (key for key in fixture.part("out")):
        part = CrossChannelTemporalMixing(
            config["frames"],
            config["channels"],
            config["heads"],
            cross_channel=not name.endswith("no_cross"),
            normalization="softmax" if name.startswith("softmax") else "linear",
        ).double()
        load_strict(part, {"attention": fixture.inputs["attention"]})
        v = fixture.inputs["v"].clone().requires_grad_()
        results[f"out/{name}"] = part(v)
        if name == "linear":
            weight = torch.linspace(-1, 1, v.numel(), dtype=v.dtype).view(v.shape)
            (results["out/linear"] * weight).sum().backward()
            results |= {"grad/v": v.grad, "grad/attention": part.attention.grad}
    return results


def gta_block(fixture: Fixture) -> dict[str, Tensor]:
    config, x = fixture.config, fixture.inputs["x"]
    results = {}
    for normalization in ("linear", "softmax"):
        block = GlobalTemporalAttention(
            config["channels"],
            config["frames"],
            config["inner"],
            config["heads"],
            config["regions"],
            normalization=normalization,
        ).double()
        state = {key.replace(".attention", ".mixing.attention"): value for key, value in fixture.weights.items()}
        counters = {key: value for key, value in block.state_dict().items() if key.endswith("num_batches_tracked")}
        load_strict(block, state | counters)
        block.eval()
        for module in block.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.eps = config["bn_eps"]
        tokens = x.flatten(3).permute(0, 2, 3, 1)
        assert block.spatial is not None
        assert isinstance(block.region, RegionMixing)
        tokens = tokens + block.spatial(tokens)

        def as_video(tokens: Tensor) -> Tensor:
            return tokens.permute(0, 3, 1, 2).unflatten(3, x.shape[-2:])

        results |= {
            "out/after_spatial": as_video(tokens),
            "out/assignment": block.region.assignment(tokens),
            f"out/{normalization}/pixel": as_video(block.pixel(tokens)),
            f"out/{normalization}/region": as_video(block.region(tokens)),
            f"out/{normalization}/y": block(x),
        }
    return results


KINDS = {"cross_channel_mixing": cross_channel_mixing, "gta_block": gta_block}
