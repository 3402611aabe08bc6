"""`saccade smooth` as a person types it."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.cli import main
from saccade.graph import CorrectAndSmooth
from saccade.worlds.graphs import citation_graph

N, K = 60, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small graph as three CSV files; the last node is isolated."""
    world = citation_graph(0, N - 1, num_classes=K, communities_per_class=2)
    prob = torch.rand(N, K) + 2 * torch.eye(K)[torch.cat([world.labels, torch.tensor([0])])] * (torch.rand(N, 1) > 0.3)
    write(tmp_path, world.edge_index, prob / prob.sum(1, keepdim=True), [*world.labels.tolist(), 0])
    return tmp_path


def write(folder: Path, edges, prob, labels) -> None:
    (folder / "edges.csv").write_text("source,target\n" + "".join(f"{a},{b}\n" for a, b in edges.T.tolist()))
    rows = "".join(",".join(f"{p:.8f}" for p in row) + "\n" for row in prob.tolist())
    (folder / "base.csv").write_text("red,green,blue\n" + rows)
    names, parts = ("red", "green", "blue"), ["train"] * 30 + ["valid"] * 15 + ["test"] * 10
    lines = [f"{node},{names[labels[node]]},{part}\n" for node, part in enumerate(parts)]
    (folder / "labels.csv").write_text("node,label,split\n" + "".join(lines))


def run(folder: Path, *more: str, edges: str = "edges.csv") -> int:
    files = ["--labels", str(folder / "labels.csv"), "--predictions", str(folder / "base.csv")]
    return main(["smooth", str(folder / edges), *files, "--out", str(folder / "out" / "result.csv"), *more])


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "result.csv").open() as file:
        return list(csv.DictReader(file))


def test_predictions_are_those_of_the_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--correct-alpha", "0.7", "--keep-valid", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert json.loads((folder / "out" / "result.json").read_text()) == summary
    edges = torch.from_numpy(np.loadtxt(folder / "edges.csv", delimiter=",", skiprows=1, dtype=np.int64)).T
    prob = torch.from_numpy(np.loadtxt(folder / "base.csv", delimiter=",", skiprows=1, dtype=np.float32))
    names = ["red", "green", "blue"]
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:]]
    labels = torch.tensor([names.index(row[1]) for row in rows] + [-1] * (N - len(rows)))
    expected = CorrectAndSmooth(correct_alpha=0.7)(prob, labels, torch.arange(30), edges)
    written = table(folder)
    assert [row["prediction"] for row in written] == [names[best] for best in expected.argmax(1).tolist()]
    scores = torch.tensor([[float(row[f"score_{name}"]) for name in names] for row in written])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    assert [row["part"] for row in written] == ["train"] * 30 + ["valid"] * 15 + ["test"] * 10 + [""] * 5
    assert summary["nodes"] == N
    assert summary["predicted_nodes"] == 30
    right = (expected.argmax(1) == labels)[45:55].double().mean()
    assert summary["accuracy"]["test"]["smoothed"] == pytest.approx(float(right), abs=1e-3)


def test_isolated_nodes_are_allowed_and_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    assert "isolated nodes keep their base prediction" in capsys.readouterr().out
    last = table(folder)[-1]
    assert last["prediction"] == last["base_prediction"]


def test_settings_are_chosen_on_the_validation_nodes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert run(folder, "--json", "--tune", "30") == 0
    tuned = json.loads(capsys.readouterr().out)
    assert tuned["accuracy"]["valid"]["smoothed"] >= plain["accuracy"]["valid"]["smoothed"]
    assert tuned["trials"] == 30
    assert run(folder, "--tune", "5") == 0
    assert "chosen: correct_alpha=" in capsys.readouterr().out


def test_an_npz_may_hold_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--json") == 0
    expected = table(folder)
    edges = np.loadtxt(folder / "edges.csv", delimiter=",", skiprows=1, dtype=np.int64).T
    prob = np.loadtxt(folder / "base.csv", delimiter=",", skiprows=1)
    names = ["red", "green", "blue"]
    lines = (folder / "labels.csv").read_text().splitlines()[1:]
    labels = np.array([names.index(line.split(",")[1]) for line in lines] + [-1] * 5)
    np.savez(
        folder / "all.npz",
        edge_index=edges,
        prob=prob,
        labels=labels,
        train=np.arange(30),
        valid=np.arange(N) // 15 == 2,
        test=np.arange(45, 55),
    )
    out = folder / "out" / "result.csv"
    assert main(["smooth", str(folder / "all.npz"), "--out", str(out)]) == 0
    written = table(folder)
    assert [row["part"] for row in written] == [row["part"] for row in expected]
    assert [names[int(row["prediction"])] for row in written] == [row["prediction"] for row in expected]


def test_weights_ids_in_any_order_comments_and_numbers_as_labels(folder: Path) -> None:
    assert run(folder) == 0
    expected = table(folder)
    edges = (folder / "edges.csv").read_text().splitlines()[1:]
    (folder / "edges.csv").write_text("# a comment\n\n" + "".join(f"{line},1.0\n" for line in edges))
    rows = (folder / "base.csv").read_text().splitlines()
    numbered = [f"{node},{row}" for node, row in enumerate(rows[1:])]
    (folder / "base.csv").write_text("\n".join([f"node,{rows[0]}", *reversed(numbered)]) + "\n")
    labels = (folder / "labels.csv").read_text()
    for number, name in enumerate(("red", "green", "blue")):
        labels = labels.replace(name, str(number))
    (folder / "labels.csv").write_text(labels)
    assert run(folder) == 0
    assert table(folder) == expected


BAD = [
    ("edges.csv", "source,target\n0,1\n0,77\n", r"edges.csv, line 3: node 77, but there are predictions for 60 nodes"),
    ("edges.csv", "0,-1\n", r"edges.csv, line 1: node -1"),
    ("edges.csv", "0,1\n2\n", r"edges.csv, line 2: expected two ids and perhaps a weight, not 2"),
    ("edges.csv", "0,1\n2,x\n", r"edges.csv, line 2: expected two ids"),
    ("edges.csv", "0,1.5\n", r"edges.csv, line 1: expected two ids"),
    ("edges.csv", "0,1,2\n1,2\n", r"some edges have a weight and some have none"),
    ("edges.csv", "0,1,-2\n", r"edges.csv: weights of edges are finite and not negative"),
    ("labels.csv", "node,label,split\n", r"there are no training nodes"),
    ("labels.csv", "0,red,valid\n", r"there are no training nodes"),
    (
        "labels.csv",
        "0,purple\n",
        r"labels.csv, line 1: label 'purple' is out of range: .*3 classes \(red, green, blue\)",
    ),
    ("labels.csv", "0,3\n", r"label '3' is out of range"),
    ("labels.csv", "0,-1\n", r"label '-1' is out of range"),
    ("labels.csv", "60,red\n", r"labels.csv, line 1: node 60, but there are predictions for 60 nodes"),
    ("labels.csv", "1,red\n1,blue\n", r"line 2: node 1 has a label already"),
    ("labels.csv", "1,red,dev\n", r"unknown split 'dev': one of train, valid, test"),
    ("labels.csv", "node,label\nred,1\n", r"line 2: expected node,label"),
    ("base.csv", "", r"base.csv is empty"),
    ("base.csv", "red,green\n", r"no row of predictions"),
    ("base.csv", "red,green\n0.5,0.5\n0.5\n", r"base.csv, line 3: expected 2 numbers"),
    ("base.csv", "red,green\n1.5,2.5\n", r"base.csv: row 0 of the predictions sums to 4 .*softmax"),
    ("base.csv", "red,green\n-0.5,1.5\n", r"is negative"),
    ("base.csv", "red,green\nnan,1\n", r"base.csv: predictions are finite"),
    ("base.csv", "node,red,green\n0,1,0\n0,1,0\n", r"every id from 0 to 1 once"),
    ("base.csv", b"\xff\xfe\x00\x81", r"base.csv is no text file"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files_are_named_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes, message: str
) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error)


OPTIONS = [
    (["--mode", "auto"], r"unknown mode 'auto': one of autoscale, fixed"),
    (["--correct-alpha", "1.5"], r"correct_alpha lies in \[0, 1\]"),
    (["--smooth-adj", "D"], r"unknown smooth_adj 'D': one of DAD, DA, AD"),
    (["--tune", "-1"], r"--tune is the number of settings"),
    (["--labels", "nowhere.csv"], r"no file nowhere.csv"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_bad_options(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert run(folder, *options) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_search_needs_validation_nodes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "labels.csv").write_text("0,red\n1,green\n")
    assert run(folder, "--tune", "3") == 2
    assert "marked `valid`" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").write_text("a file, not a folder")
    assert run(folder) == 2
    assert "cannot write" in capsys.readouterr().err


NPZ = [
    ({"prob": np.full((4, 2), 0.5)}, r"has no 'edge_index': it holds prob"),
    ({"edge_index": np.zeros((2, 1), int)}, r"has no 'prob'"),
    ({"edge_index": np.zeros((2, 1)), "prob": np.full((4, 2), 0.5)}, r"edge_index should be integers \(2, e\)"),
    ({"edge_index": np.full((2, 1), 9), "prob": np.full((4, 2), 0.5)}, r"names node 9"),
    ({"edge_index": np.zeros((2, 1), int), "prob": np.full((4, 2), 0.5), "labels": np.zeros(3, int)}, r"4 integers"),
]


@pytest.mark.parametrize(("content", "message"), NPZ)
def test_bad_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict, message: str) -> None:
    np.savez(tmp_path / "all.npz", **content)
    assert main(["smooth", str(tmp_path / "all.npz"), "--out", str(tmp_path / "out.csv")]) == 2
    assert re.search(message, capsys.readouterr().err)


GOOD = {"edge_index": np.array([[0], [1]]), "prob": np.full((4, 2), 0.5), "labels": np.array([0, 1, 5, 0])}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([0, 2], r"train node 2 has label 5, but the predictions have 2 classes"),
        ([0, 9], r"'train' names a node outside 0 to 3"),
        ([True, False], r"the mask 'train' has 2 entries for 4 nodes"),
        (np.zeros(0, int), r"there are no training nodes"),
    ],
)
def test_bad_parts_in_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str], train, message: str) -> None:
    np.savez(tmp_path / "all.npz", **GOOD, train=np.asarray(train))
    assert main(["smooth", str(tmp_path / "all.npz"), "--out", str(tmp_path / "out.csv")]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_an_archive_that_holds_objects_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "all.npz", prob=np.array([object()]), allow_pickle=True)
    assert main(["smooth", str(tmp_path / "all.npz"), "--out", str(tmp_path / "out.csv")]) == 2
    assert "no npz file of plain arrays" in capsys.readouterr().err
