import os
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from saccade.graph import Graph, tune
from saccade.graph.base import SparseFeatures, base_predictor, fit_base
from saccade.graph.datasets import load_planetoid, random_split, safe_unpickle
from tests.graph.miniature import FEATURES, LABELS, write_planetoid


@pytest.fixture
def planetoid(data_root: Path) -> Path:
    folder = data_root / "planetoid"
    if not folder.is_dir():
        pytest.skip(f"no Planetoid files in {folder}")
    return folder


def test_the_miniature_comes_back_with_rows_in_order_and_gaps_filled(tmp_path: Path) -> None:
    write_planetoid(tmp_path)
    data = load_planetoid(tmp_path, "Cora")
    assert data.features is not None
    torch.testing.assert_close(data.features.matrix.to_dense(), torch.from_numpy(FEATURES))
    assert data.labels.tolist() == LABELS
    assert data.num_classes == 3
    assert data.edge_index.tolist() == [[0, 0, 1, 5], [1, 9, 2, 7]]


@pytest.mark.parametrize("below", ["planetoid", "cora/raw", "Cora/raw"])
def test_layouts(tmp_path: Path, below: str) -> None:
    write_planetoid(tmp_path / below)
    assert load_planetoid(tmp_path, "cora").num_nodes == 10


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes", "isolated", "unlabelled"),
    [("cora", 2708, 5278, 1433, 7, 0, 0), ("citeseer", 3327, 4552, 3703, 6, 48, 15)],
)
def test_the_real_graphs(planetoid: Path, name, nodes, edges, features, classes, isolated, unlabelled) -> None:
    data = load_planetoid(planetoid, name)
    graph = Graph(data.edge_index, data.num_nodes)
    assert data.features is not None
    assert (data.num_nodes, graph.num_edges, data.num_classes) == (nodes, edges, classes)
    assert tuple(data.features.shape) == (nodes, features)
    assert len(graph.isolated) == isolated
    assert int((data.labels < 0).sum()) == unlabelled
    same = (data.labels[data.edge_index[0]] == data.labels[data.edge_index[1]]).double().mean()
    assert same > 0.7, "rows of labels do not fit the graph"


def test_pubmed_says_which_file_is_missing_and_works_without_features(planetoid: Path) -> None:
    if (planetoid / "ind.pubmed.allx").exists():
        pytest.skip("the file is there")
    with pytest.raises(FileNotFoundError, match=r"lacks ind\.pubmed\.allx.*features=False"):
        load_planetoid(planetoid, "pubmed")
    data = load_planetoid(planetoid, "pubmed", features=False)
    assert (data.num_nodes, data.edge_index.shape[1], data.num_classes) == (19717, 44324, 3)
    split = random_split(data.labels, 0)
    best = tune(None, data.labels, split.train, split.valid, data.edge_index, num_classes=3).accuracy
    assert best > 0.8


def test_splits_are_random_disjoint_whole_and_leave_unlabelled_nodes_out() -> None:
    labels = torch.randint(0, 3, (1000,))
    labels[::7] = -1
    split, again, other = random_split(labels, 0), random_split(labels, 0), random_split(labels, 1)
    parts = torch.cat([split.train, split.valid, split.test])
    assert sorted(parts.tolist()) == (labels >= 0).nonzero().flatten().tolist()
    assert torch.equal(split.train, again.train)
    assert not torch.equal(split.train, other.train)
    known = len(parts)
    assert (len(split.train), len(split.valid)) == (round(0.6 * known), round(0.8 * known) - round(0.6 * known))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("part", ["allx", "tx", "ally", "ty", "graph"])
def test_a_pickle_that_would_run_code_is_refused_before_it_does(tmp_path: Path, part: str) -> None:
    write_planetoid(tmp_path)
    (tmp_path / f"ind.cora.{part}").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol=2))
    with pytest.raises(ValueError, match=rf"ind\.cora\.{part}: refused, for it names (posix|nt)\.system"):
        load_planetoid(tmp_path, "cora")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value", [os.system, eval, getattr, np.load, scipy.sparse.load_npz, np.memmap, Path("x"), print, type]
)
def test_nothing_but_arrays_is_admitted(tmp_path: Path, value: object) -> None:
    (tmp_path / "file").write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(ValueError, match="only arrays and sparse matrices may"):
        safe_unpickle(tmp_path / "file")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_arrays_of_any_protocol_are_admitted(tmp_path: Path, protocol: int) -> None:
    values = {"a": np.arange(3), "b": scipy.sparse.csr_matrix(np.eye(2)), "c": defaultdict(list, {1: [2]})}
    if protocol < 3:
        del values["a"], values["b"]  # Python 3 spells bytes for them in a way that Python 2 does not
    (tmp_path / "file").write_bytes(pickle.dumps(values, protocol=protocol))
    assert set(safe_unpickle(tmp_path / "file")) == set(values)


def damage(tmp_path: Path, part: str, content: object) -> None:
    raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=4)
    (tmp_path / f"ind.cora.{part}").write_bytes(raw)


def broken_matrix() -> scipy.sparse.csr_matrix:
    matrix = scipy.sparse.csr_matrix(FEATURES[:6])
    matrix.indices[0] = 10**6
    return matrix


BAD = [
    ("graph", b"", r"ind\.cora\.graph is no intact pickle"),
    ("graph", b"\x80\x02}q\x00K", r"ind\.cora\.graph: pickle data was truncated"),
    ("graph", [1, 2], r"dict of neighbours, but holds list"),
    ("graph", {0: [99]}, r"names node 99, but there are 10 nodes"),
    ("ally", {0: 1}, r"one-hot labels, but holds dict"),
    ("ally", np.zeros(4), r"one-hot labels"),
    ("ty", np.eye(3, dtype=int)[[0]], r"do not fit each other"),
    ("test.index", b"8\nsix\n", r"one node id a line"),
    ("test.index", b"8\n9\n", r"do not fit each other"),
    ("allx", np.eye(3), r"sparse matrix with 6 rows"),
    ("allx", scipy.sparse.csr_matrix(FEATURES[:4]), r"sparse matrix with 6 rows"),
    ("allx", broken_matrix(), r"ind\.cora\.allx: .*indices"),
]


@pytest.mark.parametrize(("part", "content", "message"), BAD)
def test_damaged_files_are_named(tmp_path: Path, part: str, content: object, message: str) -> None:
    write_planetoid(tmp_path)
    damage(tmp_path, part, content)
    with pytest.raises(ValueError, match=message):
        load_planetoid(tmp_path, "cora")


def test_missing_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown Planetoid data 'corra': one of cora, citeseer, pubmed"):
        load_planetoid(tmp_path, "corra")
    with pytest.raises(FileNotFoundError, match=r"no files ind\.cora\.\* in"):
        load_planetoid(tmp_path, "cora")
    write_planetoid(tmp_path)
    (tmp_path / "ind.cora.graph").unlink()
    (tmp_path / "ind.cora.tx").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks ind\.cora\.graph, ind\.cora\.tx"):
        load_planetoid(tmp_path, "cora")


def learnable() -> tuple[Tensor, Tensor]:
    labels = torch.arange(90) % 3
    features = torch.randn(90, 6) * 0.3
    features[torch.arange(90), labels] += 1
    return features, labels


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_base_predictors_learn_and_keep_the_best_state(kind) -> None:
    features, labels = learnable()
    train, valid = torch.arange(60), torch.arange(60, 90)
    model = base_predictor(kind, 6, 3, hidden=16)
    fitted = fit_base(model, features, labels, train, valid, epochs=30)
    assert fitted.loss[-1] < fitted.loss[0]
    assert fitted.valid_accuracy == max(fitted.valid) > 0.7
    torch.testing.assert_close(fitted.prob.sum(1), torch.ones(90))
    assert float((fitted.prob[valid].argmax(1) == labels[valid]).double().mean()) == fitted.valid_accuracy


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_sparse_features_train_as_dense_ones_do(kind) -> None:
    features, labels = learnable()
    features = features * (features > 0.2)
    model = base_predictor(kind, 6, 3, hidden=16)
    gradients = []
    for given in (features, SparseFeatures.of(features)):
        model.zero_grad()
        torch.manual_seed(3)
        logits = model(given)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        gradients.append([logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)


def test_bad_base_predictors() -> None:
    features, labels = learnable()
    with pytest.raises(ValueError, match="1 epoch or more"):
        fit_base(base_predictor("linear", 6, 3), features, labels, torch.arange(3), torch.arange(3, 6), epochs=0)
    with pytest.raises(ValueError, match="no node is labelled"):
        fit_base(base_predictor("linear", 6, 3), features, labels, labels > 5, torch.arange(3, 6))


@pytest.mark.usefixtures("unchecked")
def test_unknown_base_predictor() -> None:
    with pytest.raises(ValueError, match="unknown base predictor 'tree': one of linear, mlp"):
        base_predictor("tree", 6, 3)
