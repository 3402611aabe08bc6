"""`saccade search` as a person uses it: on a folder of real drawings, with broken files, kills and changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from saccade.checkpoints import write_state
from saccade.cli import main
from saccade.data.images import load_digits, load_omniglot
from saccade.metric import nearest as nearest_module
from saccade.metric.embedder import Embedder, ModelSpec, load_embedder, read_image
from saccade.metric.image_index import ImageIndex, build_index
from saccade.metric.index_files import scan
from saccade.metric.nearest import Searcher, nearest
from saccade.metric.networks import SmallEmbedding

ROOT = Path(__file__).parents[2]


class Pooled(nn.Module):
    """Mean colours in a grid: a network that needs no training."""

    def __init__(self, side: int = 4) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.register_buffer("scale", torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.pool(images).flatten(1)


def to_tensor(image: Image.Image) -> Tensor:
    array = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    return torch.from_numpy(array.copy()).permute(2, 0, 1) / 255


def small(side: int = 4) -> Embedder:
    return Embedder(Pooled(side), to_tensor, ModelSpec("pooled", "none"))


def write_noise(folder: Path, count: int, seed: int = 0) -> list[Path]:
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return paths


def shards(index: Path) -> list[Path]:
    return sorted((index / "shards").iterdir())


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """2,000 Omniglot drawings as files, a folder a character, and three that are broken."""
    if not (data_root / "omniglot").is_dir():
        pytest.skip("no Omniglot files")
    folder = tmp_path_factory.mktemp("drawings")
    data = load_omniglot(data_root, "small1")
    for number in range(2000):
        path = folder / data.names[int(data.labels[number])] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - data.images[number].numpy()).save(path)
    whole = next(folder.rglob("*.png")).read_bytes()
    (folder / "text.png").write_text("no image")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_folder_of_two_thousand_drawings(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command line, with a checkpoint of ours: built, then nothing to do, then searched."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    write_state(SmallEmbedding(28, pooled=3).state_dict(), tmp_path / "net.safetensors")
    recipe = {
        "model": {
            "class_path": "saccade.metric.task.MetricLearning",
            "init_args": {
                "model": {"class_path": "saccade.metric.networks.SmallEmbedding", "init_args": {"image_size": 28}},
                "loss": {
                    "class_path": "saccade.metric.ProxyAnchorLoss",
                    "init_args": {"num_classes": 5, "embedding_size": 64},
                },
            },
        },
        "data": {
            "class_path": "saccade.metric.datasets.SmallImages",
            "init_args": {
                "name": "omniglot",
                "root": str(Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared/data"))),
            },
        },
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    build = [
        "search",
        "index",
        str(drawings),
        "-o",
        "my.index",
        "--model",
        "net.safetensors",
        "--config",
        "recipe.yaml",
    ]
    assert main([*build, "--batch-size", "64"]) == 0
    captured = capsys.readouterr()
    assert "2000 images in my.index: 2000 added, 0 changed, 0 removed, 0 as before" in captured.out
    assert "3 file(s) cannot be read and were skipped" in captured.err
    for name in ("text.png", "empty.jpg", "cut.png"):
        assert f"skipped {name}: cannot be read as an image:" in captured.err
    assert "2003/2003" in captured.err  # the progress bar's end

    assert main(["search", "index", str(drawings), "-o", "my.index", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["images"], again["added"], again["unchanged"], len(again["skipped"])) == (2000, 0, 2000, 3)

    queries = [str(path) for path in sorted(drawings.rglob("0*.png"))[::400]]
    assert main(["search", "query", *queries, "-i", "my.index", "--top", "7", "--html", "s.html", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    index = ImageIndex.open("my.index")
    for query, answer in zip(queries, found["answers"], strict=True):
        own = index.embedder(index.embedder.transform(read_image(query))[None], normalize=True)
        distances = (index.searcher.items - own).norm(dim=1)
        me = Path(query).relative_to(drawings).as_posix()
        expected = [index.files[i] for i in distances.argsort(stable=True).tolist() if index.files[i] != me][:7]
        assert [hit["file"] for hit in answer["hits"]] == expected
        similarities = [hit["similarity"] for hit in answer["hits"]]
        assert similarities == sorted(similarities, reverse=True)
    sheet = Path("s.html").read_text()
    assert sheet.count("data:image/png;base64,") == len(queries) * 8
    assert "prefers-color-scheme: dark" in sheet
    assert "http" not in sheet


SLOW = """
import sys, time
sys.path[:0] = {paths!r}
import torch
from tests.metric.test_search import Pooled, to_tensor
from saccade.metric.embedder import Embedder, ModelSpec
from saccade.metric.image_index import build_index

class Slow(Pooled):
    def forward(self, images):
        time.sleep(0.02)
        return super().forward(images)

embedder = Embedder(Slow(), to_tensor, ModelSpec("pooled", "none"))
build_index({folder!r}, {index!r}, embedder, batch_size=5, shard_size=20)
"""


def test_a_kill_loses_nothing_that_was_written_and_the_next_run_resumes(tmp_path: Path) -> None:
    folder, index = tmp_path / "images", tmp_path / "my.index"
    write_noise(folder, 300)
    (folder / "0100.png").write_bytes(b"broken")
    script = tmp_path / "build.py"
    script.write_text(SLOW.format(paths=[str(ROOT / "src"), str(ROOT)], folder=str(folder), index=str(index)))
    seen = 0
    for reached in (2, 6):
        process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
        deadline = time.monotonic() + 120
        while not index.is_dir() or len(list(index.glob("shards/*.safetensors"))) < reached:
            assert process.poll() is None, "it ended before the moment to kill it"
            assert time.monotonic() < deadline, "the moment to kill it never came"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        there = len(load_index_files(index))
        assert there >= 20 * reached - 1  # one of them is broken
        assert seen < there < 299
        seen = there
    report = build_index(folder, index, small())
    assert (report.added, report.images) == (299 - seen, 299)
    assert list(report.skipped) == ["0100.png"]
    whole = build_index(folder, tmp_path / "whole.index", small())
    assert whole.images == 299
    killed, uninterrupted = (ImageIndex.open(path, small()) for path in (index, tmp_path / "whole.index"))
    assert killed.files == uninterrupted.files
    torch.testing.assert_close(killed.searcher.items, uninterrupted.searcher.items)


def load_index_files(index: Path) -> list[str]:
    return ImageIndex.open(index, small()).files


def test_new_changed_and_removed_files_are_noticed(tmp_path: Path) -> None:
    folder, index = tmp_path / "images", tmp_path / "my.index"
    paths = write_noise(folder, 30)
    (folder / "bad.png").write_bytes(b"broken")
    assert build_index(folder, index, small(), shard_size=8).added == 30
    before = {path: path.read_bytes() for path in shards(index)}

    same = build_index(folder, index, small())
    assert (same.added, same.changed, same.removed, same.unchanged) == (0, 0, 0, 30)
    assert {path: path.read_bytes() for path in shards(index)} == before

    write_noise(folder / "more", 4, seed=1)
    Image.new("RGB", (9, 9), "red").save(paths[3])
    for path in paths[8:17]:
        path.unlink()
    Image.new("RGB", (9, 9), "blue").save(folder / "bad.png")
    paths[20].write_bytes(b"broken now")
    report = build_index(folder, index, small())
    assert (report.added, report.changed, report.removed, report.unchanged) == (5, 1, 9, 19)
    assert list(report.skipped) == ["0020.png"]
    opened = ImageIndex.open(index, small())
    assert opened.files == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png") if p != paths[20])
    fresh = tmp_path / "fresh.index"
    build_index(folder, fresh, small())
    torch.testing.assert_close(opened.searcher.items, ImageIndex.open(fresh, small()).searcher.items)
    assert opened.query(Image.new("RGB", (20, 20), "red"), top=1)[0].file == "0003.png"
    said = [file for path in shards(index) for file in json.loads(metadata(path)["files"])]
    assert sorted(said) == opened.files, "what is gone or superseded is no longer in the parts"


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as content:
        return content.metadata()


def test_when_all_files_are_gone_the_index_is_empty_and_says_so(tmp_path: Path) -> None:
    paths = write_noise(tmp_path / "images", 3)
    build_index(tmp_path / "images", tmp_path / "i", small())
    for path in paths:
        path.unlink()
    assert build_index(tmp_path / "images", tmp_path / "i", small()).removed == 3
    assert not shards(tmp_path / "i")
    with pytest.raises(ValueError, match="holds no image"):
        ImageIndex.open(tmp_path / "i", small())


def test_duplicates_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    paths = write_noise(tmp_path / "images", 20)
    for name in ("z.png", "b.png", "m.png"):
        shutil.copy(paths[7], tmp_path / "images" / name)
    build_index(tmp_path / "images", tmp_path / "i", small(), batch_size=3)
    index = ImageIndex.open(tmp_path / "i", small())
    hits = index.query(paths[7], top=5)
    assert [hit.file for hit in hits[:3]] == ["b.png", "m.png", "z.png"]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert hits[0].similarity == pytest.approx(1)
    assert hits[3].distance > 0.01
    assert [hit.file for hit in index.query(paths[7], top=4, keep_itself=True)] == [
        "0007.png",
        "b.png",
        "m.png",
        "z.png",
    ]
    assert len(index.query(paths[7], top=99)) == 22
    in_memory = index.query(Image.open(paths[7]), top=1)
    assert in_memory[0].file == "0007.png"


def test_the_euclidean_measure_compares_raw_embeddings(tmp_path: Path) -> None:
    for name, value in (("dark", 20), ("grey", 100), ("bright", 250)):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (value, value, value)).save(tmp_path / "images" / f"{name}.png")
    build_index(tmp_path / "images", tmp_path / "i", small(), measure="euclidean")
    hits = ImageIndex.open(tmp_path / "i", small()).query(Image.new("RGB", (8, 8), (110, 110, 110)))
    assert [hit.file for hit in hits] == ["grey.png", "dark.png", "bright.png"]
    assert hits[0].distance == pytest.approx(48**0.5 * 10 / 255, rel=1e-4)
    assert hits[0].similarity is None


def test_another_network_is_not_compared_with_the_index(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", 5)
    build_index(tmp_path / "images", tmp_path / "i", small())
    other = small()
    other.network.scale.fill_(2.0)
    other = Embedder(other.network, to_tensor, ModelSpec("pooled", "other.pth"))
    with pytest.raises(ValueError, match=r"made with pooled, weights none .* and pooled, weights other.pth has"):
        ImageIndex.open(tmp_path / "i", other)
    with pytest.raises(ValueError, match=r"made with pooled, weights none .* not with pooled, weights other.pth"):
        build_index(tmp_path / "images", tmp_path / "i", other)


def test_embeddings_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    paths = write_noise(tmp_path / "images", 5)
    Image.new("RGB", (8, 8)).save(paths[2])

    class Inverse(Pooled):
        def forward(self, images: Tensor) -> Tensor:
            return 1 / super().forward(images)

    report = build_index(
        tmp_path / "images", tmp_path / "i", Embedder(Inverse(), to_tensor, ModelSpec("x")), measure="euclidean"
    )
    assert report.images == 4
    assert report.skipped == {"0002.png": "its embedding is not finite"}


def test_the_index_may_lie_in_the_folder_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_noise(tmp_path, 3)
    write_noise(tmp_path / ".thumbs", 3)
    (tmp_path / "my.index" / "shards").mkdir(parents=True)
    write_noise(tmp_path / "my.index", 1)
    assert list(scan(tmp_path, tmp_path / "my.index")) == ["0000.png", "0001.png", "0002.png"]


def test_pictures_are_turned_as_their_camera_held_them(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_broken_part_is_named(tmp_path: Path, cut: int) -> None:
    write_noise(tmp_path / "images", 5)
    build_index(tmp_path / "images", tmp_path / "i", small())
    (part,) = shards(tmp_path / "i")
    part.write_bytes(part.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"000000.safetensors is not a readable part of an index .*; delete it"):
        ImageIndex.open(tmp_path / "i", small())
    part.unlink()
    assert build_index(tmp_path / "images", tmp_path / "i", small()).added == 5


def test_two_processes_do_not_write_one_index(tmp_path: Path) -> None:
    from filelock import FileLock

    write_noise(tmp_path / "images", 3)
    build_index(tmp_path / "images", tmp_path / "i", small())
    with FileLock(tmp_path / "i" / ".lock"), pytest.raises(ValueError, match="another process is writing the index"):
        build_index(tmp_path / "images", tmp_path / "i", small())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "nowhere"}, "no folder of images at nowhere"),
        ({"folder": "empty"}, "no images in .*empty: files that end in .bmp"),
        ({"path": "images"}, "images is there and is no index"),
        ({"path": "a.file"}, "a.file is there and is no index"),
        ({"measure": "manhattan"}, "cosine and euclidean are accepted"),
        ({"batch_size": 0}, "at least 1, 1 and 0 are accepted"),
        ({"folder": "others", "path": "made"}, "has the folder .*images, not .*others"),
        ({"measure": "euclidean", "path": "made"}, "has the measure cosine, not euclidean"),
        ({"path": "later"}, "has the format 99; 1 is accepted"),
        ({"path": "garbled"}, "is not what an index says of itself"),
    ],
)
def test_bad_requests_are_named(tmp_path: Path, change: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_noise(Path("images"), 3)
    write_noise(Path("others"), 3)
    Path("empty").mkdir()
    Path("a.file").write_text("x")
    build_index("images", "made", small())
    about = json.loads(Path("made/index.json").read_text())
    for name, content in (("later", json.dumps(about | {"format": 99})), ("garbled", "{")):
        Path(name).mkdir()
        Path(name, "index.json").write_text(content)
    arguments = {"folder": "images", "path": "out", "embedder": small()} | change
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build_index(**arguments)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["index", "images", "-o", "new"], "there is no index at new yet: name the network with --model"),
        (["index", "nowhere", "-o", "new", "--model", "resnet18"], "no folder of images at nowhere"),
        (["index", "images", "-o", "new", "--model", "resnet81"], "no model 'resnet81'; near it: resnet18"),
        (["index", "images", "-o", "new", "--model", "qqqqqq"], "a timm name or a file .ckpt"),
        (["index", "images", "-o", "new", "--model", "no.ckpt"], "no checkpoint at no.ckpt"),
        (["index", "images", "-o", "new", "--model", "w.safetensors"], "holds weights alone: name its network"),
        (["index", "images", "-o", "new", "--model", "w.safetensors", "--config", "metric/proxy-anchor-cub"], "fit"),
        (["index", "images", "-o", "new", "--model", "resnet18", "--config", "x"], "resnet18 is no checkpoint file"),
        (["index", "images", "-o", "new", "--model", "resnet18", "--weights", "no.pth"], "no checkpoint at no.pth"),
        (["query", "images/0000.png", "-i", "nowhere"], "no index at nowhere: `saccade search index FOLDER"),
        (["query", "nothing.png", "-i", "made"], "no image at nothing.png"),
        (["query", "images/0000.png", "-i", "made", "--top", "0"], "top is 0; at least 1"),
        (["query", "bad.png", "-i", "made"], "bad.png cannot be read as an image"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path,
    command: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_noise(Path("images"), 2)
    Path("bad.png").write_bytes(b"no")
    save_file({"a": torch.zeros(1)}, "w.safetensors")
    spec = ModelSpec("test_vit", "none")
    if "made" in command:
        build_index("images", "made", load_embedder(spec))
    assert main(["search", *command]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_weights_of_a_timm_model_from_a_file_and_unreadable_queries_among_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), "w.pth")
    write_noise(Path("images"), 4)
    Path("bad.png").write_bytes(b"no")
    assert main(["search", "index", "images", "-o", "i", "--model", "test_resnet", "--weights", "w.pth"]) == 0
    assert main(["search", "query", "images", "bad.png", "-i", "i", "--top", "2"]) == 0
    captured = capsys.readouterr()
    assert "0003.png" in captured.out
    assert "bad.png: cannot be read as an image" in captured.err
    torch.manual_seed(6)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), "w.pth")
    assert main(["search", "query", "images", "-i", "i"]) == 2
    assert "embeddings of two networks cannot be compared" in capsys.readouterr().err


def test_published_weights_are_not_downloaded_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saccade.metric import embedder

    monkeypatch.setattr(embedder, "timm_weights", lambda name: ("somewhere", False))
    write_noise(tmp_path / "images", 2)
    command = ["search", "index", str(tmp_path / "images"), "-o", str(tmp_path / "i"), "--model", "resnet18"]
    assert main(command) == 2
    assert "would have to be downloaded (from somewhere): add --download" in capsys.readouterr().err


def test_a_checkpoint_of_fit_is_searched_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    fit = ["fit", "--config", "metric/proxy-anchor-digits", "--trainer.max_epochs", "2", "--folder", "run", *quiet]
    assert main(fit) == 0
    digits = load_digits()
    for number in range(200):
        folder = Path("digits", str(int(digits.labels[number])))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images[number].numpy()).save(folder / f"{number}.png")
    assert main(["search", "index", "digits", "-o", "i", "--model", "run/last.ckpt"]) == 0
    queries = [str(next(Path("digits", str(label)).iterdir())) for label in range(10)]
    capsys.readouterr()
    assert main(["search", "query", *queries, "-i", "i", "--top", "5", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    right = [hit["file"][0] == Path(a["query"]).parent.name for a in answers for hit in a["hits"]]
    assert np.mean(right) > 0.5  # a guess has 0.1


def test_the_sheet_says_where_a_file_is_gone(tmp_path: Path) -> None:
    from saccade.metric.verbs import search_images

    paths = write_noise(tmp_path / "images", 4)
    build_index(tmp_path / "images", tmp_path / "i", load_embedder(ModelSpec("test_vit", "none")))
    found = search_images([paths[0]], tmp_path / "i")
    paths[2].unlink()
    sheet = found.html()
    assert sheet.count("data:image/png") == 3
    assert sheet.count("the file is gone, or cannot be read") == 1


class Flat:
    """Stands for faiss: exact distances from a matrix product, in an order of its own among ties."""

    def __init__(self, items: Tensor) -> None:
        self.items = items

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        squared = torch.cdist(torch.from_numpy(queries), self.items).square().flip(1)
        values, places = squared.topk(k, largest=False)
        return values.numpy(), (len(self.items) - 1 - places).numpy()


@pytest.mark.parametrize("copies", [1, 3, 60])
def test_faiss_changes_nothing(copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = torch.randn(20, 8).repeat(copies * 5, 1)[torch.randperm(100 * copies)]
    monkeypatch.setattr(Searcher, "_faiss", lambda self: Flat(self.items))
    monkeypatch.setattr(nearest_module, "find_spec", lambda name: object())
    searcher, queries = Searcher(items, faiss_from=10), torch.randn(6, 8)
    assert searcher.flat is not None
    for ours, plain in zip(searcher(queries, 7), nearest(queries, items, 7), strict=True):
        assert torch.equal(ours, plain)


def test_real_faiss_changes_nothing() -> None:
    pytest.importorskip("faiss")
    items, queries = torch.randn(500, 16), torch.randn(6, 16)
    for ours, plain in zip(Searcher(items, faiss_from=10)(queries, 7), nearest(queries, items, 7), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("count", [1, 3, 63, 64])
def test_a_few_queries_of_many_items_find_what_many_find(count: int) -> None:
    items = torch.randn(66_000, 64, generator=torch.Generator().manual_seed(0))
    items[70:90] = items[7]  # ties
    assert items.numel() > 2**22
    queries = items[5:69] + 0.1
    some, all_of_them = nearest(queries[:count], items, 12), nearest(queries, items, 12)
    for found, wanted in zip(some, all_of_them, strict=True):
        assert torch.equal(found, wanted[:count])
    squared = (items - queries[0]).double().square().sum(dim=1)
    assert torch.equal(some[1][0], squared.sort(stable=True).indices[:12])
