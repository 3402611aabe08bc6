"""Testers: against the reference library, and what its own do not do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_metric_learning.testers as peer
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator as PeerCalculator
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from saccade.metric import testers
from saccade.metric.accuracy import AccuracyCalculator
from saccade.metric.hierarchy import LabelMapper, labels_of_level

MEASURES = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
QUIET: dict[str, Any] = {"dataloader_num_workers": 0, "data_device": torch.device("cpu"), "batch_size": 7}


def data(size: int, seed: int, levels: int = 3) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randint(8 // 2**level, (size,), generator=generator) for level in range(levels)], dim=1)
    return TensorDataset(torch.randn(size, 6, generator=generator), labels)


class TwoStreams(Dataset[tuple[Tensor, Tensor, Tensor]]):
    def __init__(self, size: int = 30, columns: int = 1) -> None:
        self.x, self.y = torch.randn(2, size, 6), torch.randint(4, (size, columns)).squeeze(1)

    def __len__(self) -> int:
        return self.x.shape[1]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.x[0, index], self.x[1, index], self.y[index]


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    ours = getattr(testers, name)(
        accuracy_calculator=AccuracyCalculator(include=MEASURES, device="cpu"), **QUIET, **options
    )
    theirs = getattr(peer, name)(
        accuracy_calculator=PeerCalculator(include=MEASURES, device=torch.device("cpu")), **QUIET, **options
    )
    return ours, theirs


def alike(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert list(ours) == list(theirs)
    for split, figures in theirs.items():
        assert ours[split] == pytest.approx(figures, rel=1e-6)


@pytest.mark.parametrize("level", [0, 1, [0, 2], "all"])
@pytest.mark.parametrize("name", ["GlobalEmbeddingSpaceTester", "WithSameParentLabelTester"])
@pytest.mark.parametrize("splits", [None, [("train", ["val", "train"])], [("val", ["train"]), ("train", ["train"])]])
def test_the_reference_library_agrees(name: str, level: Any, splits: Any) -> None:
    ours, theirs = pair(name, label_hierarchy_level=level)
    trunk, embedder, sets = nn.Linear(6, 5), nn.Linear(5, 3), {"train": data(40, 0), "val": data(30, 1)}
    asked = None if splits is None else [(query, list(references)) for query, references in splits]
    found = ours.test(sets, 4, trunk, embedder, splits)
    alike(found, theirs.test(sets, 4, trunk, embedder, asked))
    assert splits is None or splits[0][1] in (["val", "train"], ["train"])  # the caller's list stays as it is
    assert ours.description_suffixes("accuracies") == theirs.description_suffixes("accuracies")


@pytest.mark.parametrize("options", [{"use_trunk_output": True}, {"normalize_embeddings": False}, {"pca": 2}], ids=str)
def test_embeddings_agree(options: dict[str, Any]) -> None:
    ours, theirs = pair("GlobalEmbeddingSpaceTester", **options)
    trunk, embedder = nn.Linear(6, 5), nn.Linear(5, 3)
    found = [tester.get_all_embeddings(data(40, 0), trunk, embedder) for tester in (ours, theirs)]
    assert torch.equal(found[0][1], found[1][1])
    if "pca" in options:  # components are known up to their sign
        found = [(embeddings.abs(), labels) for embeddings, labels in found]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
    arrays = ours.get_all_embeddings(data(40, 0), trunk, embedder, return_as_numpy=True)
    assert all(isinstance(array, np.ndarray) for array in arrays)


def test_two_streams_agree() -> None:
    ours, theirs = pair("GlobalTwoStreamEmbeddingSpaceTester")
    trunk, streams = nn.Linear(6, 3), TwoStreams()
    alike(ours.test({"val": streams}, 1, trunk), theirs.test({"val": streams}, 1, trunk, nn.Identity()))


def test_two_streams_have_levels_of_labels() -> None:
    """The reference library takes the level twice, and fails at all but the first."""
    ours, theirs = pair("GlobalTwoStreamEmbeddingSpaceTester", label_hierarchy_level=1)
    streams = TwoStreams(columns=2)
    assert "precision_at_1_level1" in ours.test({"val": streams}, 1, nn.Linear(6, 3))["val"]
    with pytest.raises(AssertionError):
        theirs.test({"val": streams}, 1, nn.Linear(6, 3), nn.Identity())


def test_labels_are_ranked_and_visualised() -> None:
    seen: list[tuple[Any, ...]] = []

    class Squares:
        def fit_transform(self, x: np.ndarray) -> np.ndarray:
            return x[:, :2] ** 2

    x, y = torch.randn(12, 6), 100 * torch.arange(1, 13)[:, None] // 400
    tester = testers.GlobalEmbeddingSpaceTester(
        set_min_label_to_zero=True,
        dataset_labels=y.numpy(),
        visualizer=Squares(),
        visualizer_hook=lambda *call: seen.append(call[1:]),
        accuracy_calculator=AccuracyCalculator(include=MEASURES, device="cpu"),
        **QUIET,
    )
    tester.test({"val": TensorDataset(x, y)}, 3, nn.Identity())
    points, labels, split, name, epoch = seen[0]
    assert points.shape == (12, 2)
    assert sorted(set(labels.tolist())) == [0, 1, 2, 3]
    assert (split, name, epoch) == ("val", "Squares_level0", 3)


def test_the_hook_sees_the_figures() -> None:
    seen = []
    tester = testers.GlobalEmbeddingSpaceTester(
        end_of_testing_hook=lambda tester: seen.append(dict(tester.all_accuracies)),
        accuracy_calculator=AccuracyCalculator(include=MEASURES, device="cpu"),
        **QUIET,
    )
    found = tester.test({"val": data(20, 0)}, 1, nn.Identity())
    assert seen == [dict(found)]
    assert not hasattr(tester, "embeddings_and_labels")


def test_levels_of_labels() -> None:
    columns = [torch.tensor([1, 2]), torch.tensor([3, 4])]
    assert labels_of_level(columns, 1).tolist() == [3, 4]
    assert labels_of_level(columns, "all").tolist() == [[1, 3], [2, 4]]
    assert labels_of_level(torch.tensor([5, 6]), 0).tolist() == [5, 6]
    assert labels_of_level(columns, [1, 0]).tolist() == [[3, 1], [4, 2]]
    mapper = LabelMapper(True, np.array([[1, 3], [2, 4], [9, 4]]))
    assert labels_of_level(columns, "all", mapper).tolist() == [[0, 0], [1, 1]]
    assert LabelMapper().map([7], 0).tolist() == [7]


def measuring(level: Any = 0, name: str = "GlobalEmbeddingSpaceTester") -> Any:
    calculator = AccuracyCalculator(include=MEASURES, device="cpu")
    return getattr(testers, name)(label_hierarchy_level=level, accuracy_calculator=calculator, **QUIET)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: measuring(5).test({"a": data(9, 0)}, 1, nn.Identity()), ValueError, "have 3 levels"),
        (
            lambda: measuring().test({"a": data(9, 0)}, 1, nn.Identity(), None, [("b", ["a"])]),
            ValueError,
            "'b' is not in",
        ),
        (
            lambda: measuring().test({"a": data(9, 0)}, 1, nn.Identity(), None, [("a", ["a"])] * 2),
            AssertionError,
            "once",
        ),
        (
            lambda: measuring(2, "WithSameParentLabelTester").test({"a": data(9, 0)}, 1, nn.Identity()),
            ValueError,
            "have a parent",
        ),
        (
            lambda: measuring(0, "GlobalTwoStreamEmbeddingSpaceTester").test(
                {"a": TwoStreams(), "b": TwoStreams()}, 1, nn.Identity(), None, [("a", ["b"])]
            ),
            AssertionError,
            "second stream",
        ),
        (lambda: measuring(0, "BaseTester").test({"a": data(9, 0)}, 1, nn.Identity()), NotImplementedError, "measures"),
        (lambda: LabelMapper(True), ValueError, "needs dataset_labels"),
        (lambda: LabelMapper(True, [1, 2]).map([3], 0), ValueError, "label 3 of level 0"),
        (
            lambda: labels_of_level(torch.zeros(4), 1),
            ValueError,
            r"level 1 was asked for of labels of the shape \(4,\)",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
