"""Images with the masks of their classes, on the layouts of VOC 2007 and COCO 2014; ImageNet val for looking at."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from torch import Tensor

from saccade.explain.pointing_game import voc_box_mask

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class Annotated:
    """An image and where its classes are.

    Args:
        name: Of the image, without folder and ending.
        path: Of the image.
        size: Height and width in pixels.
        masks: Class to the pixels of its objects, for the classes that are there.
    """

    name: str
    path: Path
    size: tuple[int, int]
    masks: Mapping[int, Bool[Tensor, "h w"]]

    def image(self) -> Float[Tensor, "3 h w"]:
        """RGB in [0, 1]."""
        return read_image(self.path)


@runtime_checkable
class AnnotatedImages(Protocol):
    """What `PointingGameBenchmark` runs on."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of their indices."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Annotated]: ...


def read_image(path: str | Path) -> Float[Tensor, "3 h w"]:
    """An image file as RGB in [0, 1].

    Args:
        path: The file.

    Returns:
        The image.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    try:
        with Image.open(path) as file:
            array = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from None
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255


class VOC2007:
    """PASCAL VOC 2007 as it unpacks: `VOCdevkit/VOC2007/{JPEGImages,Annotations,ImageSets/Main}`.

    Masks are the filled boxes of a class; classes whose boxes are all marked difficult are left out, as in the
    pointing game.

    Args:
        root: Folder that holds `VOCdevkit`, or `VOC2007`, or is the year's folder itself.
        split: Name of a list in `ImageSets/Main`; without such a folder (`None`) all annotated images are taken.

    Raises:
        FileNotFoundError: A part of the layout is missing; the message says which, and where it is to be had.
    """

    classes = VOC_CLASSES

    def __init__(self, root: str | Path, split: str | None = "test") -> None:
        root = Path(root)
        candidates = [root / "VOCdevkit" / "VOC2007", root / "VOC2007", root]
        self.root = next((folder for folder in candidates if (folder / "Annotations").is_dir()), candidates[0])
        for folder in ("JPEGImages", "Annotations"):
            if not (self.root / folder).is_dir():
                raise FileNotFoundError(
                    f"VOC 2007: no folder {self.root / folder}; unpack VOCtest_06-Nov-2007.tar of "
                    "host.robots.ox.ac.uk/pascal/VOC/voc2007 there"
                )
        if split is None:
            self.names = sorted(path.stem for path in (self.root / "Annotations").glob("*.xml"))
        else:
            listed = self.root / "ImageSets" / "Main" / f"{split}.txt"
            if not listed.is_file():
                raise FileNotFoundError(f"VOC 2007: no list {listed}")
            self.names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Annotated]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Annotated:
        name = self.names[index]
        path = self.root / "Annotations" / f"{name}.xml"
        if not path.is_file():
            raise FileNotFoundError(f"VOC 2007: no annotation {path}")
        try:
            tree = ElementTree.parse(path).getroot()
            height, width = (int(_text(tree, f"size/{side}")) for side in ("height", "width"))
            boxes: dict[int, list[list[float]]] = defaultdict(list)
            easy: set[int] = set()
            for item in tree.iter("object"):
                label = _class_of(_text(item, "name"), path)
                corners = ("xmin", "ymin", "xmax", "ymax")
                boxes[label].append([float(_text(item, f"bndbox/{corner}")) for corner in corners])
                if (item.findtext("difficult") or "0").strip() in ("0", ""):
                    easy.add(label)
        except (ElementTree.ParseError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
        masks = {label: voc_box_mask(boxes[label], height, width) for label in sorted(boxes) if label in easy}
        return Annotated(name, self.root / "JPEGImages" / f"{name}.jpg", (height, width), masks)


def _text(tree: ElementTree.Element, key: str) -> str:
    text = tree.findtext(key)
    if text is None:
        raise ValueError(f"no <{key}>")
    return text.strip()


def _class_of(name: str, path: Path) -> int:
    plain = name.replace(" ", "").split("/")[0]
    plain = {"tv": "tvmonitor"}.get(plain, plain)
    if plain not in VOC_CLASSES:
        raise ValueError(f"{name!r} is none of VOC's twenty classes")
    return VOC_CLASSES.index(plain)


class COCO2014:
    """COCO 2014 val as it unpacks: `val2014/*.jpg`, `annotations/instances_val2014.json`.

    Masks are the union of a class's segments; polygons are filled with PIL, run lengths decoded. Classes are counted
    in the order of the file's categories, 80 in the whole set.

    Args:
        root: Folder that holds both.
        split: `val2014` or another part of the same layout.

    Raises:
        FileNotFoundError: A part of the layout is missing.
        ValueError: The annotation file is malformed.
    """

    def __init__(self, root: str | Path, split: str = "val2014") -> None:
        root = Path(root)
        file = root / "annotations" / f"instances_{split}.json"
        self.folder = root / split
        for path in (file, self.folder):
            if not path.exists():
                raise FileNotFoundError(
                    f"COCO 2014: no {path}; unpack val2014.zip and annotations_trainval2014.zip of "
                    "cocodataset.org there"
                )
        try:
            content = json.loads(file.read_text())
            categories = sorted(content["categories"], key=lambda category: category["id"])
            self.classes = tuple(category["name"] for category in categories)
            index = {category["id"]: i for i, category in enumerate(categories)}
            self._items: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for item in content["annotations"]:
                self._items[item["image_id"]].append({**item, "label": index[item["category_id"]]})
            self._images = [image for image in content["images"] if image["id"] in self._items]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no COCO annotation file: {error!r}") from None

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Annotated]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Annotated:
        image = self._images[index]
        size = (int(image["height"]), int(image["width"]))
        masks: dict[int, np.ndarray] = {}
        for item in self._items[image["id"]]:
            mask = segment_mask(item["segmentation"], size)
            masks[item["label"]] = masks.get(item["label"], np.zeros(size, dtype=bool)) | mask
        path = self.folder / Path(image["file_name"]).name
        return Annotated(path.stem, path, size, {k: torch.from_numpy(masks[k]) for k in sorted(masks)})


def segment_mask(segment: list[list[float]] | dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """A COCO segment as a mask.

    Args:
        segment: Polygons [x0, y0, x1, y1, ...], or run lengths `{"counts": ...}` by column, as a list or COCO's string.
        size: Height and width.

    Returns:
        (h, w) bool.

    Raises:
        ValueError: Run lengths that do not fill the image.
    """
    if isinstance(segment, dict):
        counts = segment["counts"]
        runs = _decode(counts) if isinstance(counts, str) else list(counts)
        if sum(runs) != size[0] * size[1]:
            raise ValueError(f"run lengths sum to {sum(runs)}, the image has {size[0] * size[1]} pixels")
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return flat.reshape(size[1], size[0]).T
    canvas = Image.new("1", (size[1], size[0]))
    for polygon in segment:
        if len(polygon) >= 6:
            ImageDraw.Draw(canvas).polygon(list(zip(polygon[::2], polygon[1::2], strict=True)), fill=1, outline=1)
    return np.array(canvas, dtype=bool)


def _decode(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, differences to the run before last from the third on."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


class ImageNetVal:
    """ImageNet's validation images in one folder a class, as torchvision's `ImageFolder` reads them; to look at maps.

    Args:
        root: Folder with one folder a class (`n01440764`, ...), in the order of the classes.

    Raises:
        FileNotFoundError: No such folder, or no class folders in it.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        if not folders:
            raise FileNotFoundError(f"ImageNet: no class folders in {root}; unpack ILSVRC2012_img_val.tar and sort it")
        self.classes = tuple(folder.name for folder in folders)
        self._files = [(path, i) for i, folder in enumerate(folders) for path in sorted(folder.glob("*.JPEG"))]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 h w"], int]:
        path, label = self._files[index]
        return read_image(path), label
