"""Pointing game, data sets on miniature layouts, the benchmark and its recipes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from saccade.explain import PointingGame, checkpoints, verbs
from saccade.explain.benchmark import MAPS, BenchmarkSettings, PointingGameBenchmark, run_benchmark
from saccade.explain.datasets import COCO2014, VOC2007, ImageNetVal, read_image, segment_mask
from saccade.training.recipes import recipes

MASK = torch.zeros(40, 50, dtype=torch.bool)
MASK[10:20, 10:20] = True
OURS = {name: path for name, path in recipes().items() if name.startswith("explain/pointing")}


def test_a_point_exactly_at_the_tolerance_misses() -> None:
    game = PointingGame(3, tolerance=15)
    assert game.evaluate(MASK, (34, 15)) == -1
    assert game.evaluate(MASK, (33, 15)) == 1
    assert game.evaluate(MASK, (19 + 9, 19 + 12)) == -1
    assert game.evaluate(torch.zeros(40, 50, dtype=torch.bool), (5, 5)) == -1


def test_windowed_search_equals_all_pixels() -> None:
    game = PointingGame(1, tolerance=6.5)
    generator = np.random.default_rng(0)
    for _ in range(60):
        mask = torch.from_numpy(generator.random((20, 30)) < 0.01)
        x, y = int(generator.integers(30)), int(generator.integers(20))
        v, u = mask.nonzero().T
        expected = bool((((u - x) ** 2 + (v - y) ** 2).sqrt() < 6.5).any())
        assert (game.evaluate(mask, (x, y)) == 1) is expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.evaluate(MASK, (50, 3)), r"point \(50, 3\) lies outside the image of 50 x 40"),
        (lambda g: g.evaluate(MASK, (-1, 3)), "outside"),
        (lambda g: g.evaluate(MASK.float(), (1, 1)), r"bool tensor \(h, w\), got torch.float32"),
        (lambda g: g.evaluate(MASK[None], (1, 1)), r"got torch.bool \(1, 40, 50\)"),
        (lambda g: g.aggregate(1, 3), "class 3 is out of range: there are classes 0 to 2"),
        (lambda g: g.aggregate(2, 0), "1 .hit., -1 .miss. or 0"),
        (lambda g: PointingGame(0), "num_classes 0"),
    ],
)
def test_bad_input(unchecked: None, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(PointingGame(3))


def voc(root: Path, corrupt: bool = False) -> Path:
    """Three images: a cat beside a large dog, a person marked difficult, a bird alone."""
    base = root / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    scenes = {
        "000001": [("cat", (1, 1, 20, 20), 0), ("dog", (10, 10, 60, 48), 0)],
        "000002": [("person", (5, 5, 30, 40), 1), ("cat", (31, 5, 50, 40), 0)],
        "000003": [("bird", (1, 1, 64, 48), 0)],
    }
    for name, items in scenes.items():
        objects = "".join(
            f"<object><name>{label}</name><difficult>{hard}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
            f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
            for label, b, hard in items
        )
        text = f"<annotation><size><width>64</width><height>48</height></size>{objects}</annotation>"
        (base / "Annotations" / f"{name}.xml").write_text(text)
        Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(base / "JPEGImages" / f"{name}.jpg")
    if corrupt:
        (base / "JPEGImages" / "000003.jpg").write_bytes(b"no image")
    (base / "ImageSets/Main/test.txt").write_text("\n".join(scenes) + "\n")
    return root


def coco(root: Path) -> Path:
    (root / "annotations").mkdir()
    (root / "val2014").mkdir()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root / "val2014" / "COCO_val2014_000000000007.jpg")
    content = {
        "images": [{"id": 7, "file_name": "COCO_val2014_000000000007.jpg", "height": 48, "width": 64}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
            {"image_id": 7, "category_id": 1, "segmentation": {"counts": [48 * 10, 48, 48 * 53], "size": [48, 64]}},
        ],
    }
    (root / "annotations" / "instances_val2014.json").write_text(json.dumps(content))
    return root


def test_voc_masks_and_difficult_boxes(tmp_path: Path) -> None:
    data = VOC2007(voc(tmp_path))
    assert len(data) == 3
    first, second, _ = data
    assert set(first.masks) == {data.classes.index("cat"), data.classes.index("dog")}
    assert first.masks[data.classes.index("cat")].sum() == 400
    assert set(second.masks) == {data.classes.index("cat")}  # all of the person's boxes are difficult
    assert first.image().shape == (3, 48, 64)


def test_the_real_sample_is_read(data_root: Path) -> None:
    data = VOC2007(data_root / "voc-sample", split=None)
    assert len(data) == 3
    for item in data:
        assert item.masks
        assert item.image().shape[1:] == item.size


def test_coco_masks(tmp_path: Path) -> None:
    data = COCO2014(coco(tmp_path))
    assert data.classes == ("person", "toothbrush")
    (item,) = data
    assert item.masks[0].sum() == 48
    assert item.masks[0][:, 10].all()
    assert item.masks[1].sum() == 121


def test_compressed_run_lengths() -> None:
    # 10, 3, 3 as COCO writes them: five bits a character, from the third on relative to the one before last
    runs = [10, 3, 3]
    text = "".join(chr(48 + value) for value in (10, 3, 3))
    decoded = segment_mask({"counts": text, "size": [4, 4]}, (4, 4))
    assert np.array_equal(decoded, segment_mask({"counts": runs}, (4, 4)))
    # 4, 40, 3, 17: 40 needs two characters, 17 is 40 - 23
    text = chr(48 + 4) + chr(48 + (40 & 31) + 32) + chr(48 + 1) + chr(48 + 3) + chr(48 + (-23 & 31) + 32) + chr(48 + 31)
    assert np.array_equal(segment_mask({"counts": text}, (8, 8)), segment_mask({"counts": [4, 40, 3, 17]}, (8, 8)))
    with pytest.raises(ValueError, match="run lengths sum to 16, the image has 64"):
        segment_mask({"counts": runs}, (8, 8))


def test_missing_layouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*JPEGImages; unpack VOCtest"):
        VOC2007(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no list .*val\.txt"):
        VOC2007(voc(tmp_path), "val")
    with pytest.raises(FileNotFoundError, match=r"instances_val2014\.json; unpack"):
        COCO2014(tmp_path)
    with pytest.raises(FileNotFoundError, match="no class folders"):
        ImageNetVal(tmp_path / "none")
    broken = tmp_path / "VOCdevkit/VOC2007/Annotations/000001.xml"
    broken.write_text("<annotation>")
    with pytest.raises(ValueError, match=r"000001\.xml"):
        VOC2007(tmp_path)[0]
    broken.write_text("<annotation><size><width>4</width></size></annotation>")
    with pytest.raises(ValueError, match="no <size/height>"):
        VOC2007(tmp_path)[0]
    with pytest.raises(FileNotFoundError, match="no image at"):
        read_image(tmp_path / "x.jpg")


def test_imagenet_folders(tmp_path: Path) -> None:
    for name in ("n02", "n01"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / name / "a.JPEG")
    data = ImageNetVal(tmp_path)
    assert data.classes == ("n01", "n02")
    assert data[1][1] == 1


def test_difficult_pairs(tmp_path: Path) -> None:
    data = VOC2007(voc(tmp_path))
    cat, dog, bird = (data.classes.index(name) for name in ("cat", "dog", "bird"))
    first, second, third = data
    computed = PointingGameBenchmark(data, True)
    assert computed.counts(first, cat)
    assert not computed.counts(first, dog)  # too large
    assert not computed.counts(second, cat)  # alone
    flags = tmp_path / "flags.json"
    flags.write_text(json.dumps({"000001": [dog], "000002": []}))
    named = PointingGameBenchmark(data, flags)
    assert not named.counts(first, cat)
    assert named.counts(first, dog)
    assert not named.counts(second, cat)
    assert named.counts(third, bird)  # not named: kept
    flags.write_text("[1]")
    with pytest.raises(ValueError, match="JSON object"):
        PointingGameBenchmark(data, flags)
    with pytest.raises(FileNotFoundError, match="flags"):
        PointingGameBenchmark(data, tmp_path / "none.json")


def test_centre_and_unreadable_images(tmp_path: Path) -> None:
    data = VOC2007(voc(tmp_path, corrupt=True))
    model = nn.Sequential(nn.Conv2d(3, 20, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    gradient = BenchmarkSettings("gradient", {"smooth": 0.02}, shorter_side=32)
    result = run_benchmark(model, data, gradient, normalise=lambda x: x)
    assert (result.pairs, result.skipped) == (3, 1)
    centre = run_benchmark(model, data, BenchmarkSettings("center"), normalise=lambda x: x, tolerance=8)
    assert centre.pairs == 4
    # of the centre (32, 24): the dog and the bird hit, both cats miss by more than 8 pixels or hit by less
    assert centre.all == pytest.approx(100 * (0.5 + 1 + 1) / 20)
    with pytest.raises(ValueError, match="unknown method 'cam'"):
        run_benchmark(model, data, BenchmarkSettings("cam"), normalise=lambda x: x)
    with pytest.raises(ValueError, match="has no class 0"):
        PointingGameBenchmark(data).add(data[0], 0, None)


def test_there_is_a_recipe_for_each_table_column() -> None:
    assert len(OURS) == 4
    for name, path in OURS.items():
        text = path.read_text()
        assert all(word in text for word in ("# Expected:", "# Cost:", f"# Command:  saccade pointing {name}")), name
        content = yaml.safe_load(text)
        assert set(content["methods"]) == {"center", *MAPS} - {"linear_approx"}


@pytest.mark.parametrize("name", OURS)
def test_recipes_run_on_a_miniature(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(OURS[name].read_text())
    content["shorter_side"] = 64
    if content["model"] == "resnet50":
        content["shorter_side"] = 224  # the sliding pool wants 7 x 7
    for method, small in (("rise", {"num_masks": 2}), ("extremal_perturbation", {"max_iter": 1, "areas": [0.2]})):
        content["methods"][method].update(small)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    root = voc(tmp_path) if content["dataset"] == "voc07" else coco(tmp_path)
    chosen = tuple(content["methods"]) if content["model"] == "vgg16" and "voc" in name else ("center", "grad_cam")
    if content["model"] == "vgg16":  # 138 million weights are not needed to see that the layers are found
        monkeypatch.setattr(checkpoints, "torchray_vgg16", small_vgg)
    rows = verbs.pointing(recipe, root, "none", methods=chosen, limit=1)
    assert [row.method for row in rows] == list(chosen)
    assert all(0 <= row.all <= 100 and len(row.paper) == 2 and row.skipped == 0 for row in rows)


def small_vgg(num_classes: int) -> nn.Module:
    """TorchRay's VGG16 with few channels."""
    model = checkpoints.nn.Sequential()
    widths = iter([4, 4, "M", 4, 4, "M", 4, 4, 4, "M", 4, 4, 4, "M", 4, 4, 4, "M"])
    layers, inputs = [], 3
    for width in widths:
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        else:
            layers += [nn.Conv2d(inputs, 4, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = 4
    model.add_module("features", nn.Sequential(*layers))
    head = [nn.Conv2d(4, 8, 2), nn.ReLU(True), nn.Dropout(), nn.Conv2d(8, 8, 1), nn.ReLU(True), nn.Dropout()]
    model.add_module("classifier", nn.Sequential(*head, nn.Conv2d(8, num_classes, 1)))
    return model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "it has no methods"),
        ("{methods: {center: {}}, dataset: voc12, model: vgg16}", "dataset is 'voc12', wanted voc07 or coco14"),
        ("{methods: {center: {}}, dataset: voc07, model: vgg11}", "model is 'vgg11'"),
        ("{methods: {center: {}}, dataset: voc07, model: vgg16, tolerence: 3}", "unknown key 'tolerence'"),
        ("{", "is no YAML"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        verbs.pointing(path, tmp_path, "none")
    with pytest.raises(FileNotFoundError, match="no recipe"):
        verbs.pointing(tmp_path / "other.yaml", tmp_path, "none")
