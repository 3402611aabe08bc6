import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from saccade.claims import engine
from saccade.cli import main
from saccade.metric.claims import LOG_RATIO
from saccade.metric.continuous_datasets import ContinuousImages, JitteredCrop, read_pickled_arrays
from saccade.metric.continuous_task import ContinuousRetrieval
from saccade.metric.neighbour_batches import LabelNeighbours
from saccade.metric.neighbour_data import NeighbourGroups, StickFigureImages
from saccade.training.recipes import recipes

MINE = [name for name in recipes() if name.startswith("metric/log-ratio-")]
COUNT = 9


def write_images(root: Path) -> torch.Tensor:
    """Images of one grey value each, and labels."""
    for part in ("trn", "val"):
        (root / part).mkdir(parents=True)
        for number in range(COUNT):
            Image.fromarray(np.full((40, 50, 3), 20 * number, np.uint8)).save(root / part / f"{number:03}.jpg")
    return torch.rand(COUNT, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def write_pose(root: Path) -> None:
    """The authors' archive, with every sample at the head of its own list."""
    labels = write_images(root)
    distances, order = torch.cdist(labels, labels).sort(dim=1)
    (root / "list_nn.pkl").write_bytes(pickle.dumps(order.numpy(), protocol=2))
    (root / "dist_nn.pkl").write_bytes(pickle.dumps([row.numpy() for row in distances]))
    savemat(root / "dist_pose_val.mat", {"dist_pose": torch.cdist(labels, labels).numpy()})


def write_distances(root: Path) -> None:
    labels = write_images(root)
    np.save(root / "labels_trn.npy", labels.numpy())
    np.save(root / "distances_val.npy", torch.cdist(labels, labels).numpy())


WRITE = {"pose": write_pose, "distances": write_distances}
SMALL = {"size": 32, "resized": 40, "neighbours": 5, "num_nearest": 2, "num_queries": 3, "num_workers": 0}


@pytest.mark.parametrize("layout", WRITE)
def test_layouts_are_read(tmp_path: Path, layout: str) -> None:
    WRITE[layout](tmp_path)
    data = ContinuousImages(layout, str(tmp_path), **SMALL)
    groups = list(data.train_dataloader())
    assert len(groups) == COUNT
    labels = torch.rand(COUNT, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distances = torch.cdist(labels, labels).float()
    for ((images, apart),) in groups:
        shown = ((images[:, 0, 16, 16] + 103.939) / 20).round().long()  # the grey value tells which image it is
        torch.testing.assert_close(apart, distances[shown[0], shown[1:]], atol=1e-5, rtol=1e-5)
        assert len(images) == 6
    torch.testing.assert_close(data.query_distances(), distances[:3, 3:], atol=1e-5, rtol=1e-5)
    assert torch.cat([places for _, places in data.val_dataloader()]).tolist() == list(range(COUNT))


def test_an_epoch_repeats_and_the_next_differs(tmp_path: Path) -> None:
    write_distances(tmp_path)
    data = ContinuousImages("distances", str(tmp_path), **SMALL)
    loader = data.train_dataloader()
    first, again = ([group[0][1] for group in loader] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    loader.sampler.set_epoch(1)
    assert not all(torch.equal(a, b[0][1]) for a, b in zip(first, loader, strict=True))


def test_a_group_is_flipped_as_a_whole() -> None:
    ramp = torch.arange(4.0).expand(1, 4, 4)
    groups = NeighbourGroups(
        lambda index: ramp, LabelNeighbours(torch.rand(9, 2)), lambda: torch.tensor([0, 1, 2]), flip=True
    )
    seen = []
    for index in [0, 1, 2, 3, 4, 5, 6, 7, 8] * 3:
        images, _ = groups[index]
        mirrored = [torch.equal(image, ramp.flip(-1)) for image in images]
        assert len(set(mirrored)) == 1
        seen.append(mirrored[0])
    assert set(seen) == {True, False}


def test_the_crop_moves_and_grows_within_its_bounds() -> None:
    y, x = np.mgrid[:288, :288]
    image = Image.fromarray(np.stack([x // 2, y // 2, 0 * x], -1).astype(np.uint8))
    fixed = np.asarray(JitteredCrop(224, 288, 0.0, 0.0)(image)).astype(int)
    assert (fixed == np.asarray(image)[32:256, 32:256]).all()
    edges = []
    for _ in range(200):
        crop = np.asarray(JitteredCrop(224, 288, 0.05, 0.03)(image)).astype(int)
        edges.append((2 * crop[112, 0, 0], 2 * crop[112, -1, 0]))
    left, right = np.array(edges).T
    assert 15 <= left.min() < 22
    assert 40 < left.max() <= 49
    assert ((right - left) / 223).min() < 0.97
    assert ((right - left) / 223).max() > 1.03


def test_unreadable_images_are_left_out_of_their_groups(tmp_path: Path) -> None:
    write_distances(tmp_path)
    for part in ("trn", "val"):
        (tmp_path / part / "004.jpg").write_bytes(b"no image")
    data = ContinuousImages("distances", str(tmp_path), **(SMALL | {"neighbours": 8}))
    with pytest.warns(UserWarning, match=r"004.jpg cannot be read as an image: .*; skipped, 1 so far"):
        sizes = [(len(images), len(apart)) for ((images, apart),) in data.train_dataloader()]
    assert sizes == [(8, 7)] * COUNT
    with pytest.warns(UserWarning, match="skipped, 1 so far"):
        assert 4 not in torch.cat([places for _, places in data.val_dataloader()])
    strict = ContinuousImages("distances", str(tmp_path), strict=True, **SMALL)
    with pytest.raises(ValueError, match=r"004.jpg cannot be read"):
        list(strict.val_dataloader())


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("this must never run",))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickled_arrays_are_read_and_nothing_is_run(
    tmp_path: Path, protocol: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.pkl"
    for rows in ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]]), [np.array([1, 2]), np.array([3, 4])]):
        path.write_bytes(pickle.dumps(rows, protocol=protocol))
        assert np.array_equal(np.array(read_pickled_arrays(path)), [[1, 2], [3, 4]])
    for bad, message in (([Evil()], "it names .*print, which is not loaded"), ({"a": 1}, "not a list of rows")):
        path.write_bytes(pickle.dumps(bad, protocol=protocol))
        with pytest.raises(ValueError, match=message):
            read_pickled_arrays(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a pickle of arrays"):
        read_pickled_arrays(path)
    assert "never run" not in capsys.readouterr().out


def breakage(root: Path, what: str) -> None:
    if what == "no folder":
        (root / "trn").rename(root / "elsewhere")
    elif what == "no lists":
        (root / "list_nn.pkl").unlink()
    elif what == "short":
        (root / "trn" / "000.jpg").unlink()
    elif what == "ragged":
        (root / "dist_nn.pkl").write_bytes(pickle.dumps([[1.0]] * COUNT))
    elif what == "strange":
        (root / "list_nn.pkl").write_bytes(pickle.dumps([[77] * COUNT] * COUNT))
    elif what == "no matrix":
        (root / "dist_pose_val.mat").unlink()
    elif what == "two matrices":
        savemat(root / "dist_pose_val.mat", {"a": np.eye(3), "b": np.eye(3)})
    elif what == "small matrix":
        savemat(root / "dist_pose_val.mat", {"a": np.eye(3)})
    elif what == "no MATLAB file":
        (root / "dist_pose_val.mat").write_bytes(b"nonsense" * 99)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("no folder", FileNotFoundError, "the image folder is not at"),
        ("no lists", FileNotFoundError, "the sorted neighbour lists is not at"),
        ("short", ValueError, "has 8 images, and there are labels for 9"),
        ("ragged", ValueError, "lists of other lengths"),
        ("strange", ValueError, "list_nn.pkl, list .: it names samples outside 0 to 8"),
        ("no matrix", FileNotFoundError, "the matrix of test distances is not at"),
        ("two matrices", ValueError, "holds 2 matrices; one is wanted"),
        ("small matrix", ValueError, r"test distances are \(3, 3\); \(9, 9\)"),
        ("no MATLAB file", ValueError, "is not a MATLAB file"),
    ],
)
def test_what_is_wrong_with_the_archive_is_named(
    tmp_path: Path, what: str, error: type[Exception], message: str
) -> None:
    write_pose(tmp_path)
    breakage(tmp_path, what)
    data = ContinuousImages("pose", str(tmp_path), **SMALL)

    def read() -> None:
        list(data.train_dataloader())
        data.query_distances()

    with pytest.raises(error, match=message):
        read()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 300}, "a crop of 300 does not fit"),
        ({"mining": "hard"}, "dense and binary are accepted"),
        ({"num_queries": 0}, "both are >= 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinuousImages("distances", ".", **arguments)


@pytest.mark.parametrize("name", MINE)
def test_every_recipe_runs_on_a_miniature(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "--config", name, "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    if not name.endswith("stick-figures"):
        WRITE["pose" if "pose" in name else "distances"](tmp_path)
        arguments += ["--data.root", str(tmp_path), "--data.size", "64", "--data.resized", "80"]
        arguments += ["--data.neighbours", "7", "--data.num_queries", "3", "--data.num_workers", "0"]
    assert main(arguments) == 0, capsys.readouterr().err


def test_validation_measures_the_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one unreadable image, whose row and column are left out of the distances."""
    from lightning import Trainer

    from saccade.metric import LogRatioLoss, mean_label_distance_at_k

    write_distances(tmp_path)
    (tmp_path / "val" / "005.jpg").write_bytes(b"no image")
    data = ContinuousImages("distances", str(tmp_path), **(SMALL | {"eval_batch_size": 4}))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    task = ContinuousRetrieval(model, LogRatioLoss(), ks=(1, 5, 9), ndcg_ks=(5, 9), distance_scale=2.0)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.warns(UserWarning, match="005.jpg"):
        (found,) = trainer.validate(task, datamodule=data, verbose=False)
    kept = [0, 1, 2, 3, 4, 6, 7, 8]
    images = torch.stack([image for image, _ in (data.val_set()[i] for i in kept)])
    embeddings = model(images)
    distances = data.query_distances()[:, [0, 1, 3, 4, 5]]
    expected = mean_label_distance_at_k(embeddings[:3], embeddings[3:], distances, [5])[5]
    assert found["val/distance@5"] == pytest.approx(2 * expected, rel=1e-5)
    assert set(found) == {"val/distance@1", "val/distance@5", "val/ndcg@5"}


def test_training_follows_the_pose() -> None:
    from torch.optim import SGD

    from saccade.metric import LogRatioLoss, ndcg_continuous
    from saccade.metric.networks import SmallEmbedding
    from saccade.training import fit

    data = StickFigureImages(train_size=300, eval_size=200, num_queries=50, batch_size=4)
    task = ContinuousRetrieval(
        SmallEmbedding(32, 16, width=8), LogRatioLoss(), optimizer=lambda groups: SGD(groups, lr=0.05, momentum=0.9)
    )
    images, distances = data.figures("val").images, data.query_distances()

    def score() -> float:
        task.eval()
        with torch.no_grad():
            x = task(images)
        return ndcg_continuous(x[:50], x[50:], distances, [50])[50]

    before = score()
    curve = fit(task, data, steps=40)
    assert curve[-1][1] < 0.5 * curve[0][1]
    assert score() > before + 0.03


def test_a_smoke_run_of_the_claim(tmp_path: Path) -> None:
    first, second = (
        engine.reproduce("saccade.metric.claims:LOG_RATIO", budget="smoke", jobs=0, out=tmp_path / name)
        for name in ("one", "two")
    )
    assert {cell.arm for cell in first.cells} == set(LOG_RATIO.arms)
    assert [cell.metrics for cell in first.cells] == [cell.metrics for cell in second.cells]
    for cell in first.cells:
        assert 0.5 < cell.metrics["ndcg"] <= 1
        assert all((first.folder / path).is_file() for path in cell.pictures.values())
