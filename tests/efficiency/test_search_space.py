"""Tables, choices, and cells."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.efficiency import (
    Cell,
    ChoiceSpace,
    TabularBenchmark,
    edge_codes,
    load_ec_nasbench,
    load_nasbench201_json,
    load_nasbench_macro,
    load_table,
    one_hot,
)
from saccade.efficiency.cells import CONV1, CONV3, INPUT, OUTPUT, POOL

CHAIN = Cell(((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)), (INPUT, CONV1, POOL, OUTPUT))


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    size = draw(st.integers(2, 6))
    flips = iter(draw(st.lists(st.integers(0, 1), min_size=size * size, max_size=size * size)))
    rows = tuple(tuple(next(flips) if j > i else 0 for j in range(size)) for i in range(size))
    inner = draw(st.lists(st.sampled_from([CONV1, CONV3, POOL]), min_size=size - 2, max_size=size - 2))
    return Cell(rows, (INPUT, *inner, OUTPUT))


@settings(max_examples=40, deadline=None)
@given(cell=cells(), seed=st.integers(0, 99))
def test_how_a_cell_is_written_does_not_matter(cell: Cell, seed: int) -> None:
    size, rng = len(cell.ops), np.random.default_rng(seed)
    for _ in range(20):
        order = [0, *(1 + rng.permutation(size - 2)).tolist(), size - 1]
        if cell._is_forward(order):
            assert cell._reordered(order).canonical() == cell.canonical()


@settings(max_examples=20, deadline=None)
@given(cell=cells())
def test_who_is_a_neighbour_has_this_neighbour(cell: Cell) -> None:
    pruned = cell.pruned()
    if pruned is None or sum(map(sum, pruned.adjacency)) > 9 or len(pruned.ops) > 4:
        return
    own = pruned.canonical()
    for near in own.neighbours(5):
        assert near.pruned() == near
        assert len(near.ops) <= 5
        if abs(len(near.ops) - len(own.ops)) == 0:
            assert own in set(near.neighbours(5))


def test_vertices_on_no_way_are_left_out() -> None:
    loose = Cell(((0, 1, 0, 1), (0, 0, 1, 0), (0, 0, 0, 0), (0, 0, 0, 0)), (INPUT, CONV1, POOL, OUTPUT))
    assert loose.pruned() == Cell(((0, 1), (0, 0)), (INPUT, OUTPUT))
    assert Cell(((0, 0), (0, 0)), (INPUT, OUTPUT)).pruned() is None


def test_encodings_have_the_published_lengths() -> None:
    assert CHAIN.sequence().shape == (45,)
    assert CHAIN.matrix().shape == (49,)
    assert CHAIN.sequence()[:5].tolist() == [1, 1, 0, 0, 0]  # an edge from the input, and a 1x1 convolution
    assert CHAIN.matrix()[:8].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_noise_shows_one_run_of_each_architecture() -> None:
    runs = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, np.nan], [5.0, 6.0, np.nan]])
    table = TabularBenchmark(np.eye(3), {"valid": runs})
    assert [table.oracle("valid")(key) for key in table.keys] == [2.0, 4.0, 5.5]
    shown = {tuple(table.oracle("valid", seed)(key) for key in table.keys) for seed in range(60)}
    assert shown == {(a, 4.0, b) for a in (1.0, 2.0, 3.0) for b in (5.0, 6.0)}
    oracle = table.oracle("valid", 3)
    assert oracle("0") == oracle("0")


def test_choices_are_all_there_and_neighbours_differ_in_one() -> None:
    space = ChoiceSpace({"depth": [2, 3, 4], "block": ["a", "b"], "se": [True, False]})
    assert len(space) == 12
    assert len(set(space.keys)) == 12
    for key in space.keys:
        own = space.describe(key)
        near = [space.describe(other) for other in space.neighbours(key)]
        assert len(near) == 2 + 1 + 1
        assert all(sum(own[name] != other[name] for name in own) == 1 for other in near)
    features = space.features
    assert features.shape == (12, 3 + 2 + 2 + 1)
    assert np.linalg.matrix_rank(features) == 1 + 2 + 1 + 1


def test_a_large_space_is_sampled_and_a_bound_is_kept() -> None:
    choices = {f"layer{i}": [1, 2, 3, 4] for i in range(12)}
    space = ChoiceSpace(choices, pool=500, accept=lambda c: 28 <= sum(c.values()) <= 30, seed=1)
    assert len(space) == len(set(space.keys)) == 500
    assert all(28 <= sum(space.describe(key).values()) <= 30 for key in [*space.keys, *space.neighbours(space.keys[0])])
    assert space.keys == ChoiceSpace(choices, pool=500, accept=space.accept, seed=1).keys
    assert space.keys != ChoiceSpace(choices, pool=500, accept=space.accept, seed=2).keys


def test_macro(data_root: Path) -> None:
    table = load_nasbench_macro(data_root / "nas-bench" / "nas-bench-macro_cifar10.json")
    assert len(table) == 6561
    assert table.features.shape == (6561, 24)
    key, best = table.best("test")
    assert best == pytest.approx(93.127, abs=1e-3)
    assert table.values("test").mean() == pytest.approx(90.247, abs=1e-3)
    assert len(table.neighbours(key)) == 16
    assert type(load_table(data_root / "nas-bench" / "nas-bench-macro_cifar10.json")) is TabularBenchmark


def test_cells_of_a_table_know_their_neighbours(data_root: Path) -> None:
    table = load_ec_nasbench(data_root / "nas-bench" / "ec-nas-bench_5v_4epochs.json")
    assert len(table) == 2532
    assert table.features.shape == (2532, 45)
    matrix = load_ec_nasbench(data_root / "nas-bench" / "ec-nas-bench_5v_4epochs.json", encoding="matrix")
    assert matrix.features.shape == (2532, 49)
    near = table.neighbours(table.keys[0])
    assert near
    assert table.keys[0] not in near
    assert all(key in table.rows for key in near)
    reached, edge = {table.keys[0]}, [table.keys[0]]
    for _ in range(3):
        edge = [key for place in edge[:40] for key in table.neighbours(place) if key not in reached]
        reached |= set(edge)
    assert len(reached) > 200


def test_cells_of_nasbench201(tmp_path: Path) -> None:
    text = "|{}~0|+|{}~0|none~1|+|none~0|none~1|none~2|"
    content = {
        text.format(a, b): {"valid": [50.0 + i, 52.0 + i], "test": 60.0 + i}
        for i, (a, b) in enumerate([("none", "none"), ("nor_conv_3x3", "none"), ("none", "skip_connect")])
    }
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content))
    table = load_nasbench201_json(path)
    assert table.features.shape == (3, 30)
    assert table.best("test")[1] == 62.0
    plain = text.format("none", "none")
    assert sorted(table.neighbours(plain)) == sorted(set(content) - {plain})
    assert len(load_table(path)) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TabularBenchmark([[1.0], [1.0, 2.0]], {}), "ragged"),
        (lambda: TabularBenchmark(np.array([[np.nan]]), {}), "finite"),
        (lambda: TabularBenchmark(np.eye(2), {}, ["a", "a"]), "1 of them distinct"),
        (lambda: TabularBenchmark(np.eye(2), {"valid": np.ones(3)}), r"\(2,\) or \(2, runs\)"),
        (lambda: TabularBenchmark(np.eye(2), {"valid": np.ones(2)}).values("test"), "are valid, not 'test'"),
        (lambda: ChoiceSpace({}), "there has to be a decision"),
        (lambda: ChoiceSpace({"a": []}), "at least one choice"),
        (lambda: ChoiceSpace({"a": [1, 1]}), "a choice twice"),
        (lambda: ChoiceSpace({"a": [1, 2]}, accept=lambda c: False), "none of the 2"),
        (lambda: one_hot(np.array([[3]]), (3,)), "outside its choices"),
        (lambda: edge_codes("|x~0|"), "no cell of NAS-Bench-201"),
        (lambda: Cell(((0, 1), (1, 0)), (INPUT, OUTPUT)), "above the diagonal"),
        (lambda: Cell(((0, 1), (0, 0)), (INPUT, CONV1)), "4 .output."),
        (lambda: Cell(((0, 1),), (INPUT, OUTPUT)), "as many rows and columns"),
    ],
)
def test_bad_input(unchecked: None, make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no table"):
        load_table(tmp_path / "none.json")
    for text, message in (("{", "no JSON"), ("[]", "no architectures"), ('{"0120": {}}', "not NAS-Bench-Macro")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_table(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('{"abc": {"adjacency": [[0]], "ops": [7]}}')
    with pytest.raises(ValueError, match="not a table of cells"):
        load_table(tmp_path / "bad.json")
