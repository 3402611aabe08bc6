import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from saccade.cli import main
from saccade.metric.datasets import LAYOUTS, RetrievalImages
from saccade.training.recipes import recipes

METRIC = [name for name in recipes() if name.startswith(("metric/proxy-anchor-", "metric/metric-learning-"))]


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), (37 * number) % 256, np.uint8)).save(path)


def write_cub(root: Path) -> None:
    for label in range(4):
        for number in range(3):
            picture(root / "CUB_200_2011" / "images" / f"{label:03}.Bird" / f"{number}.jpg", label)


def write_cars(root: Path) -> None:
    rows = []
    for number, label in enumerate([1, 1, 2, 2, 99, 99, 100, 100]):
        path = f"car_ims/{number:06}.jpg"
        picture(root / "cars196" / path, number)
        rows.append((path, 1, 1, 9, 9, label, 0))
    names = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    kinds = [(name, object) for name in names]
    savemat(root / "cars196" / "cars_annos.mat", {"annotations": np.array([rows], dtype=kinds)})


def write_sop(root: Path) -> None:
    folder = root / "Stanford_Online_Products"
    for part, first in (("train", 1), ("test", 11319)):
        lines = ["image_id class_id super_class_id path"]
        for number in range(6):
            path = f"chair_final/{part}{number}.JPG"
            picture(folder / path, number)
            lines.append(f"{number} {first + number // 2} 1 {path}")
        (folder / f"Ebay_{part}.txt").write_text("\n".join(lines) + "\n")


def write_inshop(root: Path) -> None:
    folder = root / "Inshop_Clothes"
    lines = []
    for number, part in enumerate(["train"] * 4 + ["query", "gallery"] * 3):
        path = f"img/WOMEN/id_{number // 2:08}/{number}.jpg"
        picture(folder / "Img" / path, number)
        lines.append(f"{path} id_{number // 2:08} {part}")
    (folder / "Eval").mkdir()
    head = [str(len(lines)), "image_name item_id evaluation_status"]
    (folder / "Eval" / "list_eval_partition.txt").write_text("\n".join([*head, *lines]) + "\n")


def write_folder(root: Path) -> None:
    for part in ("train", "test"):
        for number in range(6):
            picture(root / part / f"class{number % 2}" / f"{number}.png", number)


WRITE = {"cub": write_cub, "cars": write_cars, "sop": write_sop, "inshop": write_inshop, "folder": write_folder}


@pytest.mark.parametrize("layout", WRITE)
def test_layouts_are_read(tmp_path: Path, layout: str) -> None:
    WRITE[layout](tmp_path)
    train, test = (LAYOUTS[layout](tmp_path, part) for part in (True, False))
    for records in (train, test):
        assert all(record.path.is_file() for record in records)
        assert {record.label for record in records} == set(range(len({record.label for record in records})))
    assert not {record.path for record in train} & {record.path for record in test}
    assert {record.part for record in test} == ({0, 1} if layout == "inshop" else {0})


@pytest.mark.parametrize("layout", WRITE)
def test_a_missing_set_is_named(tmp_path: Path, layout: str) -> None:
    with pytest.raises(FileNotFoundError, match="it is to be had from"):
        LAYOUTS[layout](tmp_path, True)


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    write_sop(tmp_path)
    (tmp_path / "Stanford_Online_Products" / "Ebay_train.txt").write_text("head\n1 2 3\n")
    with pytest.raises(ValueError, match=r"Ebay_train.txt, line 2: 3 fields, wanted 4"):
        LAYOUTS["sop"](tmp_path, True)


def test_unreadable_images_are_skipped_and_counted(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / "class0" / "0.png").write_bytes(b"no image")
    data = RetrievalImages("folder", str(tmp_path), size=32, batch_size=3, num_workers=0)
    for loader, seen in ((data.train_dataloader(), 6), (data.val_dataloader(), 5)):
        with pytest.warns(UserWarning, match=r"0.png cannot be read as an image: .* skipped, 1 so far"):
            assert sum(len(labels) for _, labels in loader) == seen
    strict = RetrievalImages("folder", str(tmp_path), size=32, batch_size=3, num_workers=0, strict=True)
    with pytest.raises(ValueError, match=r"0.png cannot be read"):
        list(strict.val_dataloader())


@pytest.mark.parametrize("name", METRIC)
def test_every_recipe_runs_on_a_miniature(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "--config", name, "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    if not name.endswith("digits"):
        WRITE[re.sub(r"metric/(proxy-anchor|metric-learning)-", "", name).partition("-")[0]](tmp_path)
        arguments += ["--data.root", str(tmp_path), "--data.size", "64", "--data.batch_size", "3"]
        arguments += ["--data.num_workers", "0", "--model.init_args.model.init_args.pretrained", "false"]
    assert main(arguments) == 0, capsys.readouterr().err


def test_the_sop_recipe_finds_what_is_wrong_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "metric/proxy-anchor-sop", "--data.root", str(tmp_path)]) == 2
    assert "Stanford Online Products is not at" in capsys.readouterr().err
