"""Layouts of adaptation's data sets, written in miniature."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from saccade.adaptation.datasets import LAYOUTS, DomainImages
from saccade.adaptation.digits_five import DOMAINS, DigitsFive, load_digits_five

CLASSES = ("bike", "mug")


def picture(path: Path, number: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (40 * number % 255, 90, 200)).save(path)
    return path.name


def folders(base: Path, count: int = 3) -> None:
    for label, name in enumerate(CLASSES):
        for number in range(count):
            picture(base / name / f"{number}.png", label + number)


def lines(domain: str, count: int = 3) -> list[str]:
    return [f"{domain}/{name}/{number}.png {label}" for label, name in enumerate(CLASSES) for number in range(count)]


def write(root: Path, layout: str) -> None:
    """Every domain of a layout, two classes of three images each."""
    bases = {
        "office31": lambda d: root / "Office" / "domain_adaptation_images" / d / "images",
        "office-home": lambda d: root / "Office-home" / "OfficeHomeDataset_10072016" / d,
        "visda": lambda d: root / "VisDA" / d,
        "domainnet": lambda d: root / "DomainNet" / d,
        "domainnet-126": lambda d: root / "multi" / d,
        "office-home-few": lambda d: root / d,
        "pacs": lambda d: root / "PACS" / d,
        "office-caltech": lambda d: root / "office_caltech_10" / d,
        "folder": lambda d: root / d,
    }
    for domain in LAYOUTS[layout].domains or ("mine", "theirs"):
        folders(bases[layout](domain))
        if layout == "visda":
            listed = [line.partition("/")[2] for line in lines(domain)]
            (root / "VisDA" / domain / "image_list.txt").write_text("\n".join(listed) + "\n")
        if layout == "domainnet":
            for part in ("train", "test"):
                (root / "DomainNet" / f"{domain}_{part}.txt").write_text("\n".join(lines(domain)))
        if layout in ("domainnet-126", "office-home-few"):
            folder = root / "txt" / ("multi" if layout == "domainnet-126" else "office_home")
            folder.mkdir(parents=True, exist_ok=True)
            few = [line for line in lines(domain) if "/0.png" in line]
            rest = [line for line in lines(domain) if line not in few]
            for name, listed in {
                f"labeled_source_images_{domain}": lines(domain),
                f"labeled_target_images_{domain}_1": few,
                f"unlabeled_target_images_{domain}_1": rest,
                f"validation_target_images_{domain}_3": rest,
            }.items():
                (folder / f"{name}.txt").write_text("\n".join(listed) + "\n")


def data(root: Path, layout: str, **settings: object) -> DomainImages:
    source, target = (LAYOUTS[layout].domains or ("mine", "theirs"))[:2]
    shots = {"shots": 1} if layout in ("domainnet-126", "office-home-few") else {}
    small = {"size": 8, "source_batch": 2, "target_batch": 2, "iterations": 2, "num_workers": 0}
    return DomainImages(layout, [source], [target], root=str(root), **(shots | small | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read(tmp_path: Path, layout: str) -> None:
    write(tmp_path, layout)
    module = data(tmp_path, layout)
    sources, targets, few = module.train_images()
    assert sources[0].labels is not None
    assert sources[0].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert targets[0].labels is None
    assert (few is not None) == (layout in ("domainnet-126", "office-home-few"))
    assert len(targets[0]) == (4 if few else 6)
    batch = next(iter(module.train_dataloader()))
    assert batch.sources[0].images.shape == batch.targets[0].shape == (2, 3, 8, 8)
    test = module.test_images()
    assert test.labels is not None
    assert len(test) == len(targets[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_set_is_named(tmp_path: Path, layout: str) -> None:
    with pytest.raises(FileNotFoundError, match="it is to be had from"):
        data(tmp_path, layout).train_images()


def test_shots_are_labelled_and_drawn_from_the_target(tmp_path: Path) -> None:
    write(tmp_path, "folder")
    few = data(tmp_path, "folder", shots=2).train_images()[2]
    assert few is not None
    assert few.labels is not None
    assert few.labels.tolist() == [0, 0, 1, 1]


def test_a_share_of_the_sources_is_held_out(tmp_path: Path) -> None:
    write(tmp_path, "folder")
    module = data(tmp_path, "folder", holdout=0.5)
    held = module.held_out()
    assert held is not None
    kept = module.train_images()[0][0]
    paths = [{record.path for record in part.files.records} for part in (held, kept)]  # type: ignore[attr-defined]
    assert paths[0] | paths[1] == set((tmp_path / "mine").rglob("*.png"))
    assert not paths[0] & paths[1]
    assert data(tmp_path, "folder").held_out() is None


def test_sources_can_be_poured_together(tmp_path: Path) -> None:
    write(tmp_path, "pacs")
    module = DomainImages(
        "pacs", ["cartoon", "photo"], ["sketch"], root=str(tmp_path), size=8, merge_sources=True, num_workers=0
    )
    sources = module.train_images()[0]
    assert [len(part) for part in sources] == [12]


def test_classes_that_differ_between_domains_are_named(tmp_path: Path) -> None:
    write(tmp_path, "folder")
    (tmp_path / "theirs" / "mug").rename(tmp_path / "theirs" / "pen")
    with pytest.raises(ValueError, match="classes of mine and theirs differ: only mine has mug; only theirs has pen"):
        data(tmp_path, "folder").train_images()


def test_a_class_that_a_list_numbers_in_two_ways(tmp_path: Path) -> None:
    write(tmp_path, "domainnet")
    file = tmp_path / "DomainNet" / "clipart_train.txt"
    file.write_text("clipart/bike/0.png 0\nclipart/mug/0.png 0\n")
    with pytest.raises(ValueError, match=r"clipart_train\.txt, line 2: class 0 is 'mug' here and 'bike' before"):
        data(tmp_path, "domainnet").train_images()


@pytest.mark.parametrize(("text", "line"), [("clipart/bike/0.png\n", 1), ("clipart/bike/0.png 0\n\nx y\n", 3)])
def test_a_malformed_line_is_named(tmp_path: Path, text: str, line: int) -> None:
    write(tmp_path, "domainnet")
    (tmp_path / "DomainNet" / "clipart_train.txt").write_text(text)
    with pytest.raises(ValueError, match=f"clipart_train.txt, line {line}: wanted 'PATH LABEL'"):
        data(tmp_path, "domainnet").train_images()


def test_an_empty_target(tmp_path: Path) -> None:
    write(tmp_path, "folder")
    for path in (tmp_path / "theirs").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no images in the 2 class folders of .*theirs"):
        data(tmp_path, "folder").train_images()


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [
        ([], ["dslr"], "at least one source"),
        (["dslr"], ["dslr"], "as source and as target"),
        (["dslr"], ["moon"], "no domain 'moon'; there is amazon"),
    ],
)
def test_domains_that_make_no_sense(sources: list[str], targets: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DomainImages("office31", sources, targets)


def test_unreadable_images_are_skipped_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "folder")
    (tmp_path / "mine" / "bike" / "0.png").write_bytes(b"no image")
    (tmp_path / "theirs" / "bike" / "0.png").write_bytes(b"no image")
    module = data(tmp_path, "folder")
    source = module.train_images()[0][0]
    with pytest.warns(UserWarning, match=r"cannot be read as an image.*skipped, 1 so far"):
        loaded = source.load(torch.tensor([0, 3]))
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1]  # the next one took its place
    test = module.test_images()
    with pytest.warns(UserWarning, match="skipped"):
        loaded = test.load(torch.tensor([0, 1, 5]))
    assert loaded.places.tolist() == [1, 5]
    assert test.skipped == 1  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="cannot be read as an image"):
        data(tmp_path, "folder", strict=True).test_images().load(torch.tensor([0]))


def digits_five(root: Path) -> None:
    """M3SDA's files, ten images a split."""
    folder = root / "Digits-Five"
    folder.mkdir()
    labels = np.arange(10)
    grey, colour = np.zeros((10, 28, 28), np.uint8), np.zeros((10, 32, 32, 3), np.uint8)
    grey[:, 4, 5] = colour[:, 4, 5] = 255
    parts = ("train", "test")
    hot = np.eye(10)
    savemat(folder / "mnist_data.mat", {f"{p}_32": grey[..., None] for p in parts} | {f"label_{p}": hot for p in parts})
    savemat(folder / "mnistm_with_label.mat", dict.fromkeys(parts, colour) | {f"label_{p}": hot for p in parts})
    for part in parts:
        column = np.where(labels == 0, 10, labels)[:, None]
        savemat(folder / f"svhn_{part}_32x32.mat", {"X": colour.transpose(1, 2, 3, 0), "y": column})
    entries = {f"{p}_data": colour for p in parts} | {f"{p}_label": labels[:, None] for p in parts}
    savemat(folder / "syn_number.mat", entries)
    both = np.empty((2, 2), object)
    for row in range(2):
        both[row, 0], both[row, 1] = grey[:, None] / 255, labels[:, None]
    savemat(folder / "usps_28x28.mat", {"dataset": both})


@pytest.mark.parametrize("domain", DOMAINS)
def test_digits_five_is_read(tmp_path: Path, domain: str) -> None:
    digits_five(tmp_path)
    for split in ("train", "test"):
        images, labels = load_digits_five(tmp_path, domain, split)  # type: ignore[arg-type]
        assert images.shape == (10, 3, 32, 32)
        assert float(images.min()) == -1
        assert float(images[:, :, 3:8, 3:8].amax()) > 0
        assert labels.tolist() == list(range(10))


@pytest.mark.parametrize("merge", [False, True])
def test_one_of_digits_five_is_the_target(tmp_path: Path, merge: bool) -> None:
    digits_five(tmp_path)
    data = DigitsFive("svhn", str(tmp_path), merge_sources=merge, source_batch=3, target_batch=2, iterations=1)
    sources, targets, _ = data.train_images()
    assert [len(part) for part in sources] == ([40] if merge else [10] * 4)
    assert targets[0].labels is None
    [batch] = data.train_dataloader()
    assert batch.targets[0].shape == (2, 3, 32, 32)


def test_digits_five_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mnist_data\.mat; it is to be had from"):
        load_digits_five(tmp_path, "mnist", "train")
    digits_five(tmp_path)
    with pytest.raises(ValueError, match="no domain 'cats'"):
        load_digits_five(tmp_path, "cats", "train")
    savemat(tmp_path / "Digits-Five" / "syn_number.mat", {"train_data": np.zeros((1, 32, 32, 3))})
    with pytest.raises(ValueError, match=r"syn_number\.mat lacks 'train_label'"):
        load_digits_five(tmp_path, "syn", "train")
    (tmp_path / "Digits-Five" / "usps_28x28.mat").write_bytes(b"no file of MATLAB's" * 20)
    with pytest.raises(ValueError, match=r"usps_28x28\.mat is not a MATLAB file"):
        load_digits_five(tmp_path, "usps", "train")
