"""The retrieval data sets, in miniatures of their real layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from saccade.metric import retrieval_sets
from saccade.metric.datasets import inaturalist_2018


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (5, 4)).save(path)


@pytest.fixture
def naturalist(tmp_path: Path) -> Path:
    """Classes 7, 3 and 5 to train on, 9 and 2 to test on; both lists of the challenge are needed."""
    rows = [
        (f"train_val2018/kind/{number}.jpg", number, category) for number, category in enumerate([7, 3, 3, 5, 9, 2, 9])
    ]
    for name, part in (("train2018.json", rows[::2]), ("val2018.json", rows[1::2])):
        listing = {
            "images": [{"file_name": path, "id": number} for path, number, _ in part],
            "annotations": [{"image_id": number, "category_id": category} for _, number, category in part],
        }
        (tmp_path / name).write_text(json.dumps(listing))
    (tmp_path / "Inat_dataset_splits").mkdir()
    for name, part in (("train", rows[:4]), ("test", rows[4:])):
        file = tmp_path / "Inat_dataset_splits" / f"Inaturalist_{name}_set1.txt"
        file.write_text("\n".join(path for path, _, _ in part) + "\n")
    for path, _, _ in rows:
        image(tmp_path / path)
    return tmp_path


def test_inaturalist_in_its_layout(naturalist: Path) -> None:
    assert [record.label for record in inaturalist_2018(naturalist, train=True)] == [2, 0, 0, 1]
    assert [record.label for record in inaturalist_2018(naturalist, train=False)] == [1, 0, 1]
    both = retrieval_sets.INaturalist2018(naturalist)
    assert both.labels == [2, 0, 0, 1, 4, 3, 4]
    assert retrieval_sets.INaturalist2018(naturalist, "test").labels == [4, 3, 4]
    picture, label = retrieval_sets.INaturalist2018(
        naturalist, "train", transform=lambda image: image.size, target_transform=str
    )[0]
    assert (picture, label) == ((5, 4), "2")


def test_cub_and_products_number_classes_from_1(tmp_path: Path) -> None:
    for name in ("001.A", "002.B", "003.C", "004.D"):
        image(tmp_path / "CUB_200_2011" / "images" / name / "one.jpg")
    assert retrieval_sets.CUB(tmp_path).labels == [1, 2, 3, 4]
    assert retrieval_sets.CUB(tmp_path, "test").labels == [3, 4]
    products = tmp_path / "Stanford_Online_Products"
    products.mkdir()
    for name, rows in (("train", ["1 1 1 a/1.jpg", "2 1 1 a/2.jpg", "3 2 1 a/3.jpg"]), ("test", ["4 3 2 b/4.jpg"])):
        (products / f"Ebay_{name}.txt").write_text("\n".join(["image_id class_id super_class_id path", *rows]))
    held = retrieval_sets.StanfordOnlineProducts(tmp_path)
    assert held.labels == [1, 1, 2, 3]
    assert Path(held.paths[3]) == products / "b" / "4.jpg"


def broken(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder)
    inaturalist_2018(folder, train=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: retrieval_sets.CUB(f, download=True), ValueError, "nothing is downloaded"),
        (lambda f: retrieval_sets.CUB(f, "validation"), ValueError, "split is 'validation'"),
        (lambda f: retrieval_sets.CUB(f / "none"), ValueError, "is no folder; get CUB from"),
        (lambda f: retrieval_sets.Cars196(f), FileNotFoundError, "Cars-196's annotations is not at"),
        (lambda f: broken(f, lambda f: (f / "val2018.json").unlink()), FileNotFoundError, "iNaturalist 2018 is not at"),
        (lambda f: broken(f, lambda f: (f / "val2018.json").write_text("{}")), ValueError, "lacks 'annotations'"),
        (
            lambda f: broken(f, lambda f: (f / "Inat_dataset_splits/Inaturalist_train_set1.txt").write_text("x.jpg")),
            ValueError,
            "line 1: x.jpg is in neither",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    naturalist: Path, call: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(naturalist)
