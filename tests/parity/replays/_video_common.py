"""Replays of what all video methods share."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from saccade.checkpoints import load_strict
from saccade.data.sampling import clip_views, dense_views, interval_center, segment_center, segment_twice
from saccade.data.transforms import uniform_crop_corner
from saccade.nn.video_resnet import ResidualBlock
from saccade.ops.temporal import temporal_shift
from tests.parity.fixtures import Fixture


def frame_sampling(fixture: Fixture) -> dict[str, Tensor]:
    views = fixture.config["views"]
    rules: dict[str, Callable[[int, int], Tensor]] = {
        "segment_center": lambda n, t: segment_center(n, t, official=True),
        "segment_test_two_clips": lambda n, t: segment_twice(n, t).flatten(),
        "dense_test_ten_clips": lambda n, t: dense_views(n, t, views),
        "ssv2_midpoints": interval_center,
    }
    ours = {}
    for key in fixture.expected:
        rule, n, t = re.fullmatch(r"out/(\w+)/n(\d+)_t(\d+)", key).groups()
        if rate := re.fullmatch(r"clip_views_rate(\d+)", rule):
            ours[key] = clip_views(int(n), int(t), int(rate[1]), views)
        else:
            ours[key] = rules[rule](int(n), int(t))
    return ours


def shift(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    return {"out/zero": temporal_shift(fixture.inputs["x"], config["num_segments"], config["fold_div"])}


def block(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    kind = "basic" if config["kind"] == "BasicBlock" else "bottleneck"
    ours = ResidualBlock(
        config["in_channels"],
        config["planes"],
        kind,
        config["stride"],
        config["out_channels"],
        shift=config.get("fold_div", 8),
    ).eval()
    counters = {key: value for key, value in ours.state_dict().items() if key.endswith("num_batches_tracked")}
    load_strict(ours, counters | fixture.weights)
    return {"out/y": ours(fixture.inputs["x"], config["num_segments"])}


def uniform_crop(fixture: Fixture) -> dict[str, Tensor]:
    ours = {}
    for key in fixture.expected:
        h, w, size, view = map(int, re.fullmatch(r"out/h(\d+)_w(\d+)_s(\d+)_view(\d+)", key).groups())
        ours[key] = torch.tensor(uniform_crop_corner(h, w, size, view))
    return ours


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "frame_sampling": frame_sampling,
    "temporal_shift": shift,
    "tsm_basic": block,
    "tsm_bottleneck": block,
    "uniform_crop": uniform_crop,
}
