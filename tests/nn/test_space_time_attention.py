import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.motionformer import PlainTrajectoryAttention
from torch import Tensor, nn

import saccade
from saccade.nn import space_time_attention
from saccade.nn.space_time_attention import (
    APPROXIMATIONS,
    DividedAttention,
    JointSpaceTimeAttention,
    TrajectoryAttention,
)

FRAMES, CELLS = 3, 4


def clip(dim: int = 12, b: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(b, 1 + FRAMES * CELLS, dim, dtype=dtype, generator=torch.Generator().manual_seed(0))


def equations(block: TrajectoryAttention, x: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Section 3.1 of the paper for one clip, token by token and head by head."""
    heads, width = block.num_heads, block.dim // block.num_heads
    scale = width**-0.5
    q, k, v = block.qkv(x).chunk(3, -1)
    count = len(x) - 1
    cells = count // frames
    pooled = torch.zeros(count, frames, block.dim, dtype=x.dtype)
    first = torch.zeros(block.dim, dtype=x.dtype)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        first[part] = (scale * k[:, part] @ q[0, part]).softmax(0) @ v[:, part]
        for i in range(count):
            for f in range(frames):
                rows = torch.arange(cells) + 1 + f * cells
                pooled[i, f, part] = (scale * k[rows, part] @ q[1 + i, part]).softmax(0) @ v[rows, part]
    out = [first]
    attention = torch.zeros(heads, count, frames, dtype=x.dtype)
    for i in range(count):
        query = block.proj_q(pooled[i, i // cells])
        key, value = block.proj_kv(pooled[i]).chunk(2, -1)
        value = value if block.value_projection else pooled[i]
        found = torch.zeros(block.dim, dtype=x.dtype)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            attention[h, i] = (scale * key[:, part] @ query[part]).softmax(0)
            found[part] = attention[h, i] @ value[:, part]
        out.append(found)
    return block.proj(torch.stack(out)), attention


@pytest.mark.parametrize("heads", [2, 6])  # fewer than frames, and more: kept, and computed again on the way back
@pytest.mark.parametrize("value_projection", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_it_is_the_papers_equations(heads: int, value_projection: bool, qkv_bias: bool) -> None:
    block = TrajectoryAttention(12, heads, qkv_bias, value_projection=value_projection).double()
    x = clip()
    out, attention = block(x, FRAMES, return_attention=True)
    for row in range(2):
        torch.testing.assert_close((out[row], attention[row]), equations(block, x[row], FRAMES))


@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize("value_projection", [True, False])
@pytest.mark.parametrize("piece", [(1, 1), (1, 7), (500, 1), (10**9, 1)])  # one frame, two; one clip, both
def test_fast_and_plain_form_are_the_same_with_their_gradients(
    heads: int, value_projection: bool, piece: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(space_time_attention.PIECE, "cpu", piece)
    ours = TrajectoryAttention(12, heads, value_projection=value_projection).double()
    plain = PlainTrajectoryAttention(12, heads, value_projection=value_projection).double()
    plain.load_state_dict(ours.state_dict())
    grads = []
    for block in (ours, plain):
        x = clip().requires_grad_()
        out, attention = block(x, FRAMES, return_attention=True)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        own = {n: p.grad for n, p in block.named_parameters() if value_projection or n != "proj_kv.bias"}
        grads.append([out, attention, x.grad, own])
    torch.testing.assert_close(grads[0], grads[1])


def test_the_released_value_variant_leaves_the_second_half_of_proj_kv_untrained() -> None:
    """The authors' code attends to the trajectory tokens themselves; the paper projects them first."""
    released, paper = (TrajectoryAttention(12, 3, value_projection=v).double() for v in (False, True))
    paper.load_state_dict(released.state_dict())
    for block in (released, paper):
        block(clip(), FRAMES).square().sum().backward()
    assert released.proj_kv.weight.grad[12:].abs().max() == 0
    assert paper.proj_kv.weight.grad[12:].abs().max() > 0
    assert (released(clip(), FRAMES) - paper(clip(), FRAMES)).abs().max() > 1e-3


def test_the_keys_bias_drops_out_of_the_softmax() -> None:
    block = TrajectoryAttention(12, 3).double()
    before = block(clip(), FRAMES)
    with torch.no_grad():
        block.proj_kv.bias[:12] += torch.randn(12, dtype=torch.float64)
    torch.testing.assert_close(block(clip(), FRAMES), before)


BLOCKS = {
    "joint": lambda: JointSpaceTimeAttention(12, 3),
    "time": lambda: DividedAttention(12, "time", 3),
    "space": lambda: DividedAttention(12, "space", 3),
    "trajectory": lambda: TrajectoryAttention(12, 3),
    **{
        kind: lambda kind=kind: TrajectoryAttention(12, 3, approximation=kind, num_landmarks=5)
        for kind in APPROXIMATIONS
    },
}


def with_bias(block: nn.Module) -> nn.Module:
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return block.eval()


@pytest.mark.parametrize("kind", ["joint", "time", "space", "trajectory"])
def test_frames_and_cells_have_no_order_of_their_own(kind: str) -> None:
    block, x = with_bias(BLOCKS[kind]().double()), clip()
    out = block(x, FRAMES)
    grid = x[:, 1:].unflatten(1, (FRAMES, CELLS))
    result = out[:, 1:].unflatten(1, (FRAMES, CELLS))
    for axis, order in ((1, [2, 0, 1]), (2, [3, 1, 0, 2])):
        moved = torch.cat([x[:, :1], grid.index_select(axis, torch.tensor(order)).flatten(1, 2)], 1)
        again = block(moved, FRAMES)
        torch.testing.assert_close(again[:, 0], out[:, 0])
        expected = result.index_select(axis, torch.tensor(order)).flatten(1, 2)
        torch.testing.assert_close(again[:, 1:], expected)


def test_other_tokens_never_see_the_class_token_of_trajectory_attention() -> None:
    block, x = TrajectoryAttention(12, 3).double(), clip()
    other = x.clone()
    other[:, 0] += 1
    before, after = block(x, FRAMES), block(other, FRAMES)
    torch.testing.assert_close(before[:, 1:], after[:, 1:])
    assert (before[:, 0] - after[:, 0]).abs().min() > 0
    joint = JointSpaceTimeAttention(12, 3).double()
    assert (joint(x, FRAMES) - joint(other, FRAMES))[:, 1:].abs().max() > 1e-4


@pytest.mark.parametrize("axis", ["time", "space"])
def test_divided_attention_is_joint_attention_with_a_mask(axis: str) -> None:
    block, x = with_bias(DividedAttention(12, axis, 3).double()), clip()
    place = torch.arange(FRAMES * CELLS)
    group = place % CELLS if axis == "time" else place // CELLS
    mask = torch.ones(1 + len(place), 1 + len(place), dtype=torch.bool)
    mask[1:, 1:] = group[:, None] == group[None]
    q, k, v = block.heads(x)
    weight = (q @ k.mT * 4**-0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(block(x, FRAMES), block.proj((weight @ v).transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("kind", BLOCKS)
def test_clips_are_independent_and_gradients_reach_every_weight(kind: str) -> None:
    block, x = with_bias(BLOCKS[kind]().double()), clip()
    if kind != "performer":  # the same features, but the largest key differs by rounding alone
        torch.testing.assert_close(block(x[:1], FRAMES), block(x, FRAMES)[:1])
    block(x, FRAMES).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0 or name == "proj_kv.bias", name


@pytest.mark.parametrize("kind", BLOCKS)
def test_autocast(kind: str) -> None:
    block, x = BLOCKS[kind]().eval(), clip(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x, FRAMES)
        out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), block(x, FRAMES), atol=0.03, rtol=0.05)


SCRIPT = """
import torch
from saccade.nn.space_time_attention import *
from saccade.ops.frame_attention import frame_attention
torch.manual_seed(0)
blocks = [JointSpaceTimeAttention(12, 3), DividedAttention(12, "time", 3), DividedAttention(12, "space", 3)]
blocks += [TrajectoryAttention(12, h, approximation=a, num_landmarks=5)
           for h, a in ((3, None), (6, None), (3, "orthoformer"), (3, "nystrom"), (3, "performer"))]
x = torch.randn(2, 13, 12)
for block in blocks:
    block.eval()
    expected = block(x, 3)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, 3), expected)
    compiled(x, 3).sum().backward()
    clips = {0: torch.export.Dim("clips", min=1, max=64)}
    exported = torch.export.export(block, (x, 3), dynamic_shapes=(clips, None)).module()
    for some in (x, torch.randn(5, 13, 12)):
        torch.testing.assert_close(exported(some, 3), block(some, 3))
    print("ok", end=" ")
"""


def test_they_compile_without_graph_breaks_and_export() -> None:
    """In a process without run-time checks of shapes, which are no part of the graph."""
    environment = {**os.environ, "PYTHONPATH": str(Path(saccade.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == ["ok"] * 8, done.stderr


def test_dropout_falls_on_the_spatial_attention_in_training_alone() -> None:
    block, x = TrajectoryAttention(12, 6, attn_drop=0.5), clip(dtype=torch.float32)
    torch.manual_seed(1)
    one = block(x, FRAMES)
    torch.manual_seed(1)
    torch.testing.assert_close(block(x, FRAMES), one)
    assert (block(x, FRAMES) - one).abs().max() > 1e-3
    block.eval()
    torch.testing.assert_close(block(x, FRAMES), block(x, FRAMES))


def test_orthoformer_is_fixed_in_eval_and_drawn_in_training() -> None:
    block, x = TrajectoryAttention(12, 3, approximation="orthoformer", num_landmarks=3), clip(dtype=torch.float32)
    assert len({float(block(x, FRAMES).detach().sum()) for _ in range(6)}) > 1
    block.eval()
    assert len({float(block(x, FRAMES).detach().sum()) for _ in range(3)}) == 1


def test_random_features_are_a_buffer_that_nobody_reseeds() -> None:
    block, x = TrajectoryAttention(12, 3, approximation="performer", num_landmarks=16).eval(), clip(dtype=torch.float32)
    state = torch.get_rng_state()
    one = block(x, FRAMES)
    assert torch.equal(one, block(x, FRAMES))
    assert torch.equal(state, torch.get_rng_state())
    twin = TrajectoryAttention(12, 3, approximation="performer", num_landmarks=16).eval()
    twin.load_state_dict(block.state_dict())
    assert torch.equal(twin(x, FRAMES), one)
    block.redraw_projection(torch.Generator().manual_seed(3))
    assert (block(x, FRAMES) - one).abs().max() > 1e-4


BAD = [
    (lambda: TrajectoryAttention(12, 5), "dim has to be a multiple of num_heads, not 12 with 5 heads"),
    (lambda: TrajectoryAttention(12, 3, approximation="linformer"), "None or one of orthoformer, nystrom, performer"),
    (lambda: TrajectoryAttention(12, 3, num_landmarks=0), "num_landmarks has to be at least 1"),
    (lambda: TrajectoryAttention(12, 3, attn_drop=1.0), "attn_drop has to be in"),
    (lambda: DividedAttention(12, "frames", 3), "axis is 'time' or 'space'"),
    (lambda: TrajectoryAttention(12, 3)(torch.zeros(1, 12, 12), 3), "N = 11 tokens .* num_frames = 3"),
    (lambda: JointSpaceTimeAttention(12, 3)(torch.zeros(1, 13, 12), 0), "num_frames = 0"),
    (
        lambda: TrajectoryAttention(12, 3)(torch.zeros(1, 13, 8), 3),
        r"tokens have to be \(b, 1 \+ frames \* cells, 12\)",
    ),
    (lambda: TrajectoryAttention(12, 3)(torch.zeros(13, 12), 3), "tokens have to be"),
    (lambda: TrajectoryAttention(12, 3, approximation="nystrom")(torch.zeros(1, 13, 12), 3), "from 1 to 12"),
    (lambda: TrajectoryAttention(12, 3).redraw_projection(), "only 'performer' has random features"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
