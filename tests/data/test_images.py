import bz2
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data import images


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_digits_are_there_without_a_download() -> None:
    digits = images.load_digits()
    assert digits.images.shape == (1797, 8, 8)
    assert digits.labels.bincount().min() > 170


def test_choosing_classes_renumbers_them() -> None:
    digits = images.load_digits().of([7, 2])
    assert digits.names == ("7", "2")
    assert set(digits.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("packed", [".gz", ""])
@pytest.mark.parametrize(
    ("load", "folder"), [(images.load_mnist, "MNIST"), (images.load_fashion_mnist, "FashionMNIST")]
)
def test_idx_files_are_read_packed_or_not(tmp_path: Path, load, folder: str, packed: str) -> None:
    pixels, labels = np.arange(5 * 28 * 28) % 256, np.array([3, 1, 4, 1, 5])
    raw = tmp_path / folder / "raw"
    write_idx(raw / f"train-images-idx3-ubyte{packed}", pixels.reshape(5, 28, 28))
    write_idx(raw / f"train-labels-idx1-ubyte{packed}", labels)
    loaded = load(tmp_path, "train")
    assert loaded.labels.tolist() == labels.tolist()
    assert torch.equal(loaded.images.flatten(), torch.from_numpy(pixels % 256).to(torch.uint8))
    with pytest.raises(FileNotFoundError, match=f"{folder}, test part"):
        load(tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "not an IDX file"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3i", 2, 28, 28) + b"x" * 100, "its header says"),
    ],
)
def test_a_file_that_is_not_idx_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        images.load_mnist(tmp_path, "train")


def test_a_malformed_line_of_usps_is_named(tmp_path: Path) -> None:
    good = "3 " + " ".join(f"{i}:-1.0" for i in range(1, 257))
    (tmp_path / "usps.bz2").write_bytes(bz2.compress(f"{good}\n3 1:0.5\n".encode()))
    with pytest.raises(ValueError, match=r"usps.bz2, line 2"):
        images.load_usps(tmp_path, "train")


def test_omniglot_folders_are_read(tmp_path: Path) -> None:
    for character in ("character01", "character02"):
        folder = tmp_path / "omniglot-py" / "images_background" / "Greek" / character
        folder.mkdir(parents=True)
        Image.fromarray(np.full((105, 105), 255, np.uint8)).convert("1").save(folder / "0001_01.png")
    loaded = images.load_omniglot(tmp_path, "background")
    assert loaded.names == ("Greek/character01", "Greek/character02")
    assert int(loaded.images.max()) == 0
    with pytest.raises(ValueError, match="no alphabet 'Klingon'"):
        images.load_omniglot(tmp_path, "background", alphabets=["Klingon"])
    with pytest.raises(ValueError, match="no part 'small9'"):
        images.load_omniglot(tmp_path, "small9")
    with pytest.raises(FileNotFoundError, match="Omniglot, evaluation"):
        images.load_omniglot(tmp_path, "evaluation")


def test_the_real_sets_are_what_they_should_be(data_root: Path) -> None:
    mnist = images.load_mnist(data_root, "test")
    assert (len(mnist), mnist.labels.bincount().tolist()[:2]) == (10_000, [980, 1135])
    usps = [images.load_usps(data_root, split) for split in ("train", "test")]
    assert [len(part) for part in usps] == [7291, 2007]
    assert usps[0].images.shape[1:] == (16, 16)
    small = images.load_omniglot(data_root, "small1")
    assert (len(small.names), len(small)) == (136, 2720)
    assert float(small.images.float().mean()) < 60  # ink is bright, and there is little of it
    with pytest.raises(FileNotFoundError, match="MNIST, train part"):
        images.load_mnist(data_root, "train")
