from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.claims import engine
from saccade.graph.claims import CORRECT_AND_SMOOTH
from saccade.graph.datasets import NodeData, Split
from saccade.graph.pictures import by_known_neighbours, confidence, neighbourhood, spring_layout

CLAIM = "saccade.graph.claims:CORRECT_AND_SMOOTH"


def test_a_smoke_run_gives_every_arm_its_figures_and_pictures(tmp_path: Path) -> None:
    result = engine.reproduce(CLAIM, budget="smoke", jobs=0, out=tmp_path)
    assert {cell.arm for cell in result.cells} == set(CORRECT_AND_SMOOTH.arms)
    for cell in result.cells:
        assert 0 <= cell.metrics["accuracy"] <= 100
        assert cell.curves or cell.arm == "linear_correct"
    pictures = [path for cell in result.cells for path in cell.pictures.values()]
    assert len(pictures) == 3
    assert all((result.folder / path).is_file() for path in pictures)


def test_a_cell_is_a_function_of_its_seed(tmp_path: Path) -> None:
    first, second = (
        engine.reproduce(CLAIM, budget="smoke", jobs=0, out=tmp_path / name).cells for name in ("one", "two")
    )
    assert [cell.metrics for cell in first] == [cell.metrics for cell in second]


def test_pubmed_runs_label_propagation_alone(tmp_path: Path, data_root: Path) -> None:
    if not (data_root / "planetoid").is_dir():
        pytest.skip("no Planetoid files")
    result = engine.reproduce(CLAIM, on="pubmed", budget="smoke", jobs=0, out=tmp_path, data_root=data_root)
    assert [cell.arm for cell in result.cells] == ["lp"]
    assert result.cells[0].metrics["accuracy"] > 60


def test_real_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="planetoid"):
        engine.reproduce(CLAIM, on="cora", budget="smoke", jobs=0, out=tmp_path, data_root=tmp_path)


@pytest.mark.parametrize("data", list(CORRECT_AND_SMOOTH.data))
def test_every_data_has_arms_and_something_expected_of_them(data: str) -> None:
    narrowed = CORRECT_AND_SMOOTH.for_data(data)
    assert narrowed.arms
    assert [e for e in narrowed.expectations if not e.on or data in e.on]
    assert set(CORRECT_AND_SMOOTH.data[data].paper) <= set(narrowed.arms)


@pytest.mark.parametrize("edges", [[[0], [1]], [[], []]])
def test_pictures_of_tiny_graphs(edges: list[list[int]]) -> None:
    labels = torch.tensor([0, 1, 0, 1, 0])
    data = NodeData("tiny", torch.tensor(edges, dtype=torch.long), labels, 2)
    split = Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([2, 3, 4]))
    before, after = torch.rand(5, 2).softmax(1), torch.zeros(5, 2)
    for draw in (neighbourhood, by_known_neighbours, confidence):
        picture = draw(data, split, before, after)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert min(picture.shape[:2]) >= 300
        assert 0 < (picture < 128).mean() < 0.5, "nothing is drawn"


def test_neighbours_lie_closer_than_strangers() -> None:
    edges = np.array([(a, b) for side in (0, 8) for a in range(side, side + 8) for b in range(a + 1, side + 8)])
    spots = spring_layout(edges, 16)
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=2)
    assert apart[:8, :8].mean() < 0.6 * apart[:8, 8:].mean()
