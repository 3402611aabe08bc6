from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from saccade.action.claims.motion_squeeze import small_backbone
from saccade.action.claims.motionformer import MOTIONFORMER, TrackStream, patch_clip
from saccade.action.track_reader import HIDDEN, TrackReader
from saccade.claims import Cell, Outcome
from saccade.ops.frame_attention import frame_attention
from saccade.worlds.motion import MotionWorld
from saccade.worlds.tracks import TrackWorld


def compute(arm: str, data: str, **overrides: object) -> Outcome:
    settings = {**MOTIONFORMER.budgets["smoke"].settings, **MOTIONFORMER.data[data].settings, "steps": 20, **overrides}
    torch.manual_seed(1)
    return MOTIONFORMER.run(
        Cell(
            arm=arm,
            options=MOTIONFORMER.arms[arm].options,
            seed=1,
            data=data,
            settings=settings,
            device=torch.device("cpu"),
            data_root=Path(),
            once=lambda name, build: build(),
            progress=lambda share: None,
        )
    )


@pytest.mark.parametrize(
    ("data", "arm"), [(data, arm) for data in MOTIONFORMER.data for arm in MOTIONFORMER.for_data(data).arms]
)
def test_smoke(data: str, arm: str) -> None:
    outcome, narrowed = compute(arm, data), MOTIONFORMER.for_data(data)
    assert set(outcome.metrics) == set(narrowed.metrics)
    assert all(np.isfinite(value) for value in outcome.metrics.values())
    assert narrowed.expectations
    for picture in outcome.pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 300
        assert picture.std() > 10


def test_a_cell_repeats() -> None:
    one, two = (compute("trajectory", "tracks") for _ in range(2))
    assert one.metrics == two.metrics
    assert one.curves == two.curves


def test_all_arms_have_as_many_parameters_and_the_same_learning_rate() -> None:
    counts = {kind: sum(p.numel() for p in TrackReader(kind).parameters()) for kind in HIDDEN}
    assert counts == {"joint": 21_910, "divided": 22_038, "trajectory": 21_958}
    assert set(MOTIONFORMER.budgets["small"].settings["lr"]) == set(HIDDEN)


@pytest.mark.parametrize("kind", list(HIDDEN))
def test_where_it_looks_is_its_attention(kind: str) -> None:
    reader, clips = TrackReader(kind).eval(), TrackWorld().batch("test", range(4))
    looks = reader.looks_at(clips.tokens, clips.query)
    assert looks.shape == (4, 6, 25)
    total = looks.sum(2) if kind == "trajectory" else looks.sum((1, 2))
    torch.testing.assert_close(total, torch.ones_like(total))
    if kind == "divided":
        assert (looks.sum(1).argmax(1) == clips.query).all()


def test_the_stream_gives_each_clip_once() -> None:
    world = TrackWorld(seed=2)
    batches = list(TrackStream(world, 103))
    assert len(batches) == 103
    clips = world.batch("train", range(103 * 32))
    assert torch.equal(torch.cat([batch["label"] for batch in batches]), clips.label)
    assert torch.equal(batches[101]["tokens"], clips.tokens[101 * 32 : 102 * 32])


def test_trajectory_tokens_find_a_moving_patch_and_the_same_cell_loses_it() -> None:
    cells, place = patch_clip(0)
    unit = F.normalize(cells, dim=-1)
    asked = unit[0, place[0]]
    found = frame_attention(asked[None, None] * 8 / 0.05, *[unit.flatten(0, 1)[None]] * 2, 6)[0, 0]
    assert float(F.cosine_similarity(found, asked[None]).min()) > 0.9
    assert float(F.cosine_similarity(unit[1:, place[0]], asked[None]).max()) < 0.6


def test_a_network_that_sees_one_frame_is_at_chance_on_the_motion_world() -> None:
    """Trained on single frames of clips of the claims' speed, it guesses one direction of eight."""
    world = MotionWorld(speed=(5.0, 7.5), radius=(8.0, 10.0), grain=4)
    train, test = world.batch("train", range(1024)), world.batch("test", range(1000))
    torch.manual_seed(0)
    network = small_backbone(None, None)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for frame in (0, 3):
        for rows in torch.arange(1024).split(32):
            loss = F.cross_entropy(network(train.video[rows, :, frame : frame + 1]), train.label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        right = (network(test.video[:, :, 1:2]).argmax(1) == test.label).double().mean()
    assert 0.08 < float(right) < 0.17  # 1/8, give or take four standard errors


def test_metrics_belong_to_their_data() -> None:
    keys = {data: list(MOTIONFORMER.for_data(data).metrics) for data in MOTIONFORMER.data}
    assert keys["tracks"] == ["moving", "still"]
    assert keys["plateau"] == ["moving", "still", "half"]
    assert keys["clusters"] == keys["sharp"] == ["error", "ratio"]
    assert keys["patch"] == ["cosine"]
    for data, metrics in keys.items():
        for expected in MOTIONFORMER.for_data(data).expectations:
            assert expected.metric in metrics
