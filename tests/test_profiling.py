"""Costs against hand counts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from saccade.action import MotionSqueeze
from saccade.nn.on_clips import OnClips
from saccade.nn.x3d import X3DBlock, x3d_s
from saccade.profiling import profile
from saccade.surgery import insert_after


def test_hand_counts() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )
    costs = profile(model, [torch.zeros(2, 3, 8, 8)], runs=3)
    assert costs.parameters == costs.trainable == (8 * 27 + 8) + 8 * 9 + (128 * 5 + 5)
    by_hand = [2 * 64 * 8 * 27, 2 * 16 * 8 * 9, 0, 2 * 128 * 5]
    assert [row.macs for row in costs.modules] == by_hand
    assert costs.macs == sum(by_hand)
    assert [row.output for row in costs.modules] == [(2, 8, 8, 8), (2, 8, 4, 4), (2, 128), (2, 5)]
    assert [row.kind for row in costs.modules] == ["Conv2d", "Conv2d", "Flatten", "Linear"]
    latency = costs.latency
    assert latency.runs == 3
    assert 0 < latency.p10 <= latency.median <= latency.p90 <= latency.p99


def test_an_x3d_block_by_the_formula_of_its_convolutions() -> None:
    frames, inner, hidden = 3, 18, 8
    block = X3DBlock(8, 16, inner, stride=2)
    before, after = frames * 8 * 8, frames * 4 * 4
    wanted = before * 8 * inner + after * inner * 27 + after * inner * 16 + 2 * inner * hidden + after * 8 * 16
    assert profile(block, [torch.zeros(1, 8, frames, 8, 8)], runs=1, warmup=0).macs == wanted


def test_x3d_s_has_the_published_count() -> None:
    costs = profile(x3d_s(), [torch.zeros(1, 3, 13, 160, 160)], runs=1, warmup=0, depth=2)
    assert costs.macs / 1e9 == pytest.approx(1.963, abs=1e-3)
    assert costs.parameters == 3794322
    stem = {row.name: row.macs for row in costs.modules}
    assert stem["stem.spatial"] == 13 * 80 * 80 * 24 * 27
    assert stem["stem.temporal"] == 13 * 80 * 80 * 24 * 5


def test_peak_memory_is_what_is_held_at_once() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 1) * 2

    x = torch.zeros(1000, 1000)
    costs = profile(Doubled(), [x], runs=1)
    assert 0 <= costs.peak_bytes - 2 * 4 * x.numel() < 1024  # and scalars


def test_training_counts_both_passes_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    costs = profile(model, [torch.randn(6, 4)], training=True, runs=2)
    forward = 6 * (4 * 8 + 8 * 2)
    assert (costs.macs, costs.training_macs) == (forward, forward + 6 * (4 * 8 + 2 * 8 * 2))  # no gradient of the input
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_the_backward_pass_of_convolutions_costs_as_much_for_each_gradient() -> None:
    grouped = nn.Conv3d(8, 8, 3, padding=1, groups=8, bias=False)
    model = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), grouped, nn.ConvTranspose3d(8, 4, 2, 2))
    costs = profile(model, [torch.randn(1, 3, 2, 4, 4)], training=True, runs=1)
    first, second, third = 32 * 8 * 81, 32 * 8 * 27, 32 * 8 * 4 * 8
    assert costs.macs == first + second + third
    assert costs.training_macs == 2 * first + 3 * second + 3 * third  # no gradient of the input


def test_blocks_cost_what_they_cost_alone() -> None:
    block = MotionSqueeze(8, 4, 5, hidden=(4, 4))
    alone = profile(OnClips(block), [torch.randn(1, 8, 3, 6, 6)], runs=1).macs
    model = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1))
    clips = torch.randn(1, 3, 3, 6, 6)
    before = profile(model, [clips], runs=1).macs
    insert_after(model, "0", OnClips(block), example=clips)
    assert profile(model, [clips], runs=1).macs == before + alone
    assert alone > 0


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: profile(nn.Linear(2, 2), [torch.zeros(1, 2)], runs=0), "at least 1"),
        (lambda: profile(nn.Linear(2, 2), [torch.zeros(1, 2)], depth=-1), "at least 0"),
        (lambda: profile(nn.Linear(2, 2), [torch.zeros(1, 3)]), r"cannot take an input of \(1, 3\)"),
        (lambda: profile(nn.ReLU(), [torch.zeros(1, 3)], training=True), "nothing to learn"),
    ],
)
def test_bad_input(measure: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure()
