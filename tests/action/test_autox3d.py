"""The search space of X3D networks, its exact costs, the supernet, and what is derived from it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.action.autox3d import AutoX3D, X3DSearchSpace, kernel_sides, multiply_adds
from saccade.action.x3d_search import SearchSettings, block_groups, search_x3d
from saccade.action.x3d_supernet import X3DSupernet
from saccade.bench import peak_memory
from saccade.nn.x3d import x3d_l, x3d_m, x3d_s, x3d_xs
from saccade.nn.x3d_architecture import BlockPlan, X3DArchitecture
from saccade.nn.x3d_blocks import GlobalContext
from saccade.profiling import profile

SPACE = X3DSearchSpace(
    frames=4,
    crop=32,
    stride=1,
    num_classes=5,
    attentions=("none", "se", "gc"),
    groups=(2, 4, 6, 8),
    depths=(1, 3, 2, 2),
    stem=8,
    head=24,
    features=16,
)
ROWS = SPACE.space.sample(12, torch.Generator().manual_seed(0))


def supernet(seed: int = 0) -> X3DSupernet:
    """In float64, with norms that do something."""
    torch.manual_seed(seed)
    model = X3DSupernet(SPACE).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5)
    return model


@pytest.mark.parametrize("row", ROWS, ids=[f"sample{i}" for i in range(12)])
def test_a_sample_computes_what_the_derived_network_computes(row: Tensor) -> None:
    model, clips = supernet(), torch.randn(3, 3, 4, 32, 32, dtype=torch.float64)
    derived = model.extract(row).train()
    ours, theirs = model(clips, row), derived(clips)
    assert ours.std() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    width = derived.architecture.stages[-1][0].out
    taken = model.channels(4, width)
    gradient = model.head.expand.weight.grad
    torch.testing.assert_close(gradient[:, taken], derived.head.expand.weight.grad, atol=1e-9, rtol=1e-6)
    outside = torch.ones(gradient.shape[1], dtype=torch.bool)
    outside[taken] = False
    assert not gradient[:, outside].any()


@pytest.mark.parametrize("row", ROWS[:6], ids=[f"sample{i}" for i in range(6)])
def test_costs_are_those_of_the_derived_network(row: Tensor) -> None:
    network = AutoX3D(SPACE.decode(row), SPACE.num_classes)
    measured = profile(network, [torch.zeros(1, 3, 4, 32, 32)], runs=1, warmup=0)
    assert int(SPACE.cost()(row[None])[0]) == measured.macs == multiply_adds(network)
    assert int(SPACE.cost("parameters")(row[None])[0]) == measured.parameters


@pytest.mark.parametrize(
    ("build", "billions"), [(x3d_xs, 0.605), (x3d_s, 1.963), (x3d_m, 4.73), (x3d_l, 18.37)], ids=["xs", "s", "m", "l"]
)
def test_the_family_costs_what_is_published(build: Callable[[], torch.nn.Module], billions: float) -> None:
    with torch.device("meta"):
        model = build()
    assert multiply_adds(model) / 1e9 == pytest.approx(billions, rel=0.01)
    assert model.architecture.cost().parameters == sum(p.numel() for p in model.parameters())


def test_x3d_s_is_in_the_default_space() -> None:
    space = X3DSearchSpace()
    architecture = space.decode(space.x3d())
    with torch.device("meta"):
        assert architecture.stages == x3d_s().architecture.stages
        assert AutoX3D(architecture).state_dict().keys() == x3d_s().state_dict().keys()
    assert multiply_adds(architecture, crop=182) / 1e9 == pytest.approx(2.72, abs=0.01)


def test_decisions_with_one_choice_are_none_and_skipped_blocks_vanish() -> None:
    space = replace(SPACE, candidates=(1, 1, 3, 3), attentions=("se",))
    assert "1.width" not in space.space.names
    assert not any(name.endswith("attention") for name in space.space.names)
    assert "skip" not in space.space.decisions["2.0.kernel"]
    row = space.space.encode({**space.space.decode(space.x3d()), "2.1.kernel": "skip", "2.2.kernel": "skip"})
    architecture = space.decode(row)
    assert [len(stage) for stage in architecture.stages] == [1, 1, 2, 2]
    assert {block.attention for stage in architecture.stages for block in stage} == {"se"}
    assert architecture.stages[0][0].out == 2
    assert int(space.cost()(row[None])[0]) == architecture.cost(5).multiply_adds


def test_fair_channels_train_every_filter_alike() -> None:
    model = supernet()
    slices = [model.channels(1, width) for width in SPACE.widths(1)]
    uses = torch.zeros(10)
    for taken in slices:
        uses[taken] += 1
    assert uses.tolist() == 10 * [3.0]


def test_memory_is_that_of_one_network_whatever_the_number_of_samples() -> None:
    model, clips = X3DSupernet(SPACE), torch.randn(2, 3, 4, 32, 32)

    def samples(rows: Tensor) -> None:
        for row in rows:
            (-F.cross_entropy(model(clips, row), torch.tensor([0, 1]))).backward()

    few, many = (
        peak_memory(lambda rows=rows: samples(rows)) for rows in (ROWS[:1].repeat(2, 1), ROWS[:1].repeat(6, 1))
    )
    assert many < 1.1 * few


def test_global_context_is_its_formula() -> None:
    block, x = GlobalContext(6, 3).double(), torch.randn(2, 6, 2, 3, 4, dtype=torch.float64)
    flat = x.flatten(2)
    weights = (block.look.weight.flatten(1) @ flat).softmax(-1)
    context = (flat * weights).sum(2)
    hidden = (context @ block.reduce.weight.flatten(1).T + block.reduce.bias).relu()
    expected = x + (hidden @ block.expand.weight.flatten(1).T + block.expand.bias)[..., None, None, None]
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_an_architecture_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    architecture = SPACE.decode(ROWS[0])
    architecture.save(tmp_path / name)
    assert X3DArchitecture.load(tmp_path / name) == architecture


def test_a_derived_network_is_saved_and_reloads_to_the_bit(tmp_path: Path) -> None:
    model = AutoX3D(SPACE.decode(ROWS[3]), 5).eval()
    model.save(tmp_path / "net")
    clips = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(AutoX3D.load(tmp_path / "net").eval()(clips), model(clips))
    with pytest.raises(FileNotFoundError, match="no architecture at"):
        AutoX3D.load(tmp_path)
    (tmp_path / "net" / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        AutoX3D.load(tmp_path / "net")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "neither JSON nor YAML"),
        ("[1]", "holds no architecture but a list"),
        ("{}", "a.json: not an architecture: 'stages'"),
        ('{"stages": [[{"out": 8, "inner": 8, "kernel": [1, 1, 1], "colour": 1}]]}', "colour"),
        (
            '{"frames": 4, "crop": 3, "stem": 8, "head": 8, "stages": [[{"out": 8, "inner": 8}]]}',
            "at least 4, as it is",
        ),
    ],
)
def test_malformed_architectures_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        X3DArchitecture.load(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kernel_sides("3x3"), "three odd sides such as 3x3x3"),
        (lambda: X3DSearchSpace(kernels=("2x3x3",)), "not '2x3x3'"),
        (lambda: X3DSearchSpace(kernels=("skip",)), "not 'skip'"),
        (lambda: X3DSearchSpace(candidates=(4, 5, 5, 5)), "odd number of widths"),
        (lambda: X3DSearchSpace(depths=(3, 5)), "an entry for each stage"),
        (lambda: X3DSearchSpace(attentions=("cbam",)), "not 'cbam'"),
        (lambda: X3DSearchSpace(expansions=(0.0,)), "positive"),
        (lambda: X3DSearchSpace(kernels=()), "at least one choice"),
        (lambda: X3DSearchSpace(crop=31), "at least 32"),
        (lambda: BlockPlan(0, 8), "at least 1"),
        (lambda: BlockPlan(8, 8, (3, 3, 2)), "three odd sides"),
        (lambda: BlockPlan(8, 8, attention="x"), "not 'x'"),
        (lambda: X3DArchitecture(4, 32, 8, [[]], 8), "at least one block"),
        (lambda: X3DArchitecture(4, 32, 8, [[BlockPlan(8, 8), BlockPlan(9, 8)]], 8), "same width"),
        (lambda: X3DArchitecture(0, 32, 8, [[BlockPlan(8, 8)]], 8), "at least 1"),
        (lambda: AutoX3D(SPACE.decode(ROWS[0]), 0), "num_classes"),
        (lambda: X3DSupernet(SPACE)(torch.zeros(1, 1, 4, 32, 32), ROWS[0]), r"\(b, 3, t, h, w\)"),
        (lambda: X3DSupernet(SPACE)(torch.zeros(1, 3, 4, 32, 32), ROWS[0] + 9), "which has 0 to"),
        (lambda: SearchSettings(steps=3, warmup=3), "at least 1 step after its warm-up"),
        (lambda: SearchSettings(steps=3, optimizer="lion"), "'lion'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.usefixtures("unchecked")
def test_uint8_is_refused() -> None:
    with pytest.raises(TypeError, match=r"not torch\.uint8"):
        X3DSupernet(SPACE)(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8), ROWS[0])


def test_bf16_autocast_searches() -> None:
    model = X3DSupernet(SPACE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = model.log_likelihood({"video": torch.randn(2, 3, 4, 32, 32), "label": torch.tensor([0, 1])}, ROWS[1])
    value.backward()
    assert bool(value.isfinite())


def clips(step: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {"video": torch.randn(4, 3, 4, 32, 32, generator=draw), "label": torch.randint(5, (4,), generator=draw)}


def test_joint_from_unites_the_choices_of_a_block() -> None:
    settings = SearchSettings(steps=6, joint_from=4, lr=0.05, max_samples=3)
    result = search_x3d(SPACE, clips, lambda step: clips(1000 + step), 1e6, settings)
    assert [list(group) for group in result.distribution.groups] == block_groups(SPACE)
    assert len(result.history) == 6
    assert result.cost <= 1
    assert [row["entropy"] for row in result.history[:3]] == pytest.approx(3 * [result.history[0]["entropy"]])


SCRIPT = """
import torch
from pathlib import Path
from saccade.action.x3d_search import SearchSettings, search_x3d
from tests.action.test_autox3d import SPACE, clips
torch.set_num_threads(1)
settings = SearchSettings(steps=50, joint_from=25, lr=0.05, max_samples=3)
result = search_x3d(SPACE, clips, lambda step: clips(1000 + step), 1e6, settings, folder=Path("search"), save_every=2)
torch.save([result.history, result.choices, result.supernet.state_dict(), result.distribution.state_dict()], "end.pt")
"""


def test_a_search_survives_kills_and_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}

    def start(folder: Path) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=folder, env=environment, start_new_session=True)

    def steps(folder: Path) -> int:
        path = folder / "search" / "search.pt"
        return torch.load(path, weights_only=True)["step"] if path.exists() else 0

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(timeout=240) == 0
    for reached in (4, 30):
        process = start(killed)
        while steps(killed) < reached:
            assert process.poll() is None, "it ended before the moment to kill it"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (killed / "end.pt").exists()
    assert start(killed).wait(timeout=240) == 0
    one, two = (torch.load(folder / "end.pt", weights_only=True) for folder in (whole, killed))
    assert one[0] == two[0]
    assert torch.equal(one[1], two[1])
    for mine, theirs in zip(one[2:], two[2:], strict=True):
        for key, value in mine.items():
            assert torch.equal(theirs[key], value), key
    assert X3DArchitecture.load(killed / "search" / "architecture.json") == SPACE.decode(one[1])


def test_another_search_does_not_go_on_from_it(tmp_path: Path) -> None:
    search_x3d(SPACE, clips, clips, 1e6, SearchSettings(steps=2, max_samples=2), folder=tmp_path)
    with pytest.raises(ValueError, match="another space, target or settings"):
        search_x3d(SPACE, clips, clips, 2e6, SearchSettings(steps=2, max_samples=2), folder=tmp_path)
