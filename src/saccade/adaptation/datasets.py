"""Domain adaptation's data sets in their real layouts, and a person's own folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torchvision.transforms import v2

from saccade.adaptation.datamodule import DomainData
from saccade.adaptation.digits import draw_shots
from saccade.adaptation.images import FileImages, ImageSet
from saccade.data.loading import mix
from saccade.data.records import Record, class_folders
from saccade.data.root import default_root, require
from saccade.nn.input_spec import IMAGENET_MEAN, IMAGENET_STD

Role = Literal["source", "target", "labelled", "validation", "test"]
"""What a list of images is for; the lists of a target differ by it, and most layouts make no other difference."""


@dataclass(frozen=True)
class DomainFiles:
    """The images of one domain.

    Args:
        records: Files with their classes.
        names: Class to its name.
    """

    records: list[Record]
    names: dict[int, str]


Read = Callable[[Path, str, Role, int], DomainFiles]
"""Root, domain, role and shots to the files."""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on the disk.

    Args:
        domains: Its domains; any folder's name where empty.
        read: Gives a domain's files.
    """

    domains: tuple[str, ...]
    read: Read


def _office31(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
    """`Office/domain_adaptation_images/{amazon,dslr,webcam}/images/<class>/*`."""
    return class_domain(root / "Office" / "domain_adaptation_images" / domain / "images", "Office-31")


def _office_home(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
    """`Office-home/OfficeHomeDataset_10072016/{Art,Clipart,Product,RealWorld}/<class>/*`."""
    base = root / "Office-home" / "OfficeHomeDataset_10072016"
    spaced = base / "Real World"  # as the archive has it
    return class_domain(spaced if domain == "RealWorld" and spaced.is_dir() else base / domain, "Office-Home")


def _visda(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
    """`VisDA/{train,validation}/image_list.txt`, with lines `<class>/<file> <label>`."""
    folder = root / "VisDA" / domain
    return _listed(require(folder / "image_list.txt", "VisDA-C", "the VisDA-2017 challenge's page"), [folder])


def _domainnet(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
    """`DomainNet/<domain>_{train,test}.txt`, with lines `<domain>/<class>/<file> <label>`."""
    base = root / "DomainNet"
    part = "test" if role == "test" else "train"
    return _listed(require(base / f"{domain}_{part}.txt", "DomainNet", "the authors' page (M3SDA)"), [base])


def _few_labelled(images: str) -> Read:
    """The lists of semi-supervised adaptation (MME, MiCo): `txt/SET/*.txt`; images in `SET` or in the root."""

    def read(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
        if shots not in (1, 3):
            raise ValueError(f"shots is {shots}; the lists of {images} are of 1 or 3 labelled images a class")
        name = {
            "source": f"labeled_source_images_{domain}",
            "target": f"unlabeled_target_images_{domain}_{shots}",
            "test": f"unlabeled_target_images_{domain}_{shots}",
            "labelled": f"labeled_target_images_{domain}_{shots}",
            "validation": f"validation_target_images_{domain}_3",
        }[role]
        file = require(root / "txt" / images / f"{name}.txt", f"the split of {domain}", "the page of MME or DeCoTa")
        return _listed(file, [root / images, root])

    return read


def _pacs(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
    """`PACS/{art_painting,cartoon,photo,sketch}/<class>/*`."""
    return class_domain(root / "PACS" / domain, "PACS")


def _office_caltech(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
    """`office_caltech_10/{amazon,caltech,dslr,webcam}/<class>/*`."""
    return class_domain(root / "office_caltech_10" / domain, "Office-Caltech10")


def _own(root: Path, domain: str, role: Role, shots: int) -> DomainFiles:
    """A person's own: `<domain>/<class>/*`."""
    return class_domain(root / domain, f"the domain {domain}")


_SIX = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")

LAYOUTS: dict[str, Layout] = {
    "office31": Layout(("amazon", "dslr", "webcam"), _office31),
    "office-home": Layout(("Art", "Clipart", "Product", "RealWorld"), _office_home),
    "visda": Layout(("train", "validation"), _visda),
    "domainnet": Layout(_SIX, _domainnet),
    "domainnet-126": Layout(("clipart", "painting", "real", "sketch"), _few_labelled("multi")),
    "office-home-few": Layout(("Art", "Clipart", "Product", "Real"), _few_labelled("office_home")),
    "pacs": Layout(("art_painting", "cartoon", "photo", "sketch"), _pacs),
    "office-caltech": Layout(("amazon", "caltech", "dslr", "webcam"), _office_caltech),
    "folder": Layout((), _own),
}
LayoutName = Literal[
    "office31",
    "office-home",
    "visda",
    "domainnet",
    "domainnet-126",
    "office-home-few",
    "pacs",
    "office-caltech",
    "folder",
]


class DomainImages(DomainData):
    """Photographs of several domains. The target's training images come without their labels.

    Args:
        layout: Which data set's layout; `folder` is a person's own, `<domain>/<class>/*`.
        sources: Names of the source domains.
        targets: Names of the target domains; the first is tested on.
        root: Root of the data set; the data root where `None`.
        shots: Labelled images a class of the first target: of the data set's own lists where it has such lists, else
            drawn by `seed`; 0: none.
        size: Side of the crop.
        augmentation: `resized-crop`: random resized crop and flip; `crop`: all of the image squared at 8/7 of the size,
            then a random crop and flip; `none`: squared at the size.
        holdout: Share of each source that is kept to validate on.
        strict: Stop at an image that cannot be read, instead of leaving it out.
        merge_sources: Pour all sources together, as methods that do not know the domains want it.
        source_batch: Images of each source an iteration and a process.
        target_batch: Images of each target.
        labelled_batch: Labelled images of the target.
        iterations: An epoch's.
        num_workers: Processes that load.
        seed: Of order, augmentation, shots and what is held out.

    Raises:
        ValueError: Unknown domains, a domain that is source and target, classes that differ between domains.
        FileNotFoundError: A data set that is not there.
    """

    def __init__(
        self,
        layout: LayoutName = "folder",
        sources: Sequence[str] = (),
        targets: Sequence[str] = (),
        root: str | None = None,
        shots: int = 0,
        size: int = 224,
        augmentation: Literal["resized-crop", "crop", "none"] = "resized-crop",
        holdout: float = 0.0,
        strict: bool = False,
        merge_sources: bool = False,
        source_batch: int = 32,
        target_batch: int = 32,
        labelled_batch: int = 24,
        iterations: int = 500,
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(source_batch, target_batch, labelled_batch, iterations, num_workers, seed, 64)
        if not sources or not targets:
            raise ValueError(f"name at least one source and one target, not {list(sources)} and {list(targets)}")
        if twice := set(sources) & set(targets):
            raise ValueError(f"{twice.pop()!r} is named as source and as target")
        if not 0 <= holdout < 1 or shots < 0:
            raise ValueError(f"holdout {holdout} is in [0, 1), shots {shots} at least 0")
        self.layout = LAYOUTS[layout]
        for domain in [*sources, *targets]:
            if self.layout.domains and domain not in self.layout.domains:
                raise ValueError(f"{layout} has no domain {domain!r}; there is {', '.join(self.layout.domains)}")
        self.has_lists = layout in ("domainnet-126", "office-home-few")
        self.sources = list(sources)
        self.targets = list(targets)
        self.root = Path(root) if root else default_root()
        self.shots = shots
        self.holdout = holdout
        self.strict = strict
        self.merge_sources = merge_sources
        self.train_transform, self.test_transform = transforms(size, augmentation)

    def train_images(self) -> tuple[Sequence[ImageSet], Sequence[ImageSet], ImageSet | None]:
        """Sources with their labels, targets without them, and the labelled few."""
        sources = [self._files(domain, "source") for domain in self.sources]
        targets = [self._files(domain, "target") for domain in self.targets]
        same_classes(dict(zip([*self.sources, *self.targets], [*sources, *targets], strict=True)))
        few: list[Record] = []
        if self.shots:
            few = self._few(targets[0])
        kept = [self._kept(domain.records, held=False) for domain in sources]
        if self.merge_sources:
            kept = [[record for records in kept for record in records]]
        # from here on nobody can tell what the target shows
        unknown = [[replace(record, label=-1) for record in domain.records] for domain in targets]
        return (
            [self._train(records) for records in kept],
            [self._train(records) for records in unknown],
            self._train(few) if few else None,
        )

    def held_out(self) -> ImageSet | None:
        """The data set's own few labelled validation images of the target, or a share of the sources."""
        if self.has_lists:
            records = self._files(self.targets[0], "validation").records
        elif self.holdout:
            records = [
                record
                for domain in self.sources
                for record in self._kept(self._files(domain, "source").records, held=True)
            ]
        else:
            return None
        return FileImages(records, self.test_transform, strict=self.strict)

    def test_images(self) -> ImageSet:
        """The first target, with its labels."""
        return FileImages(self._files(self.targets[0], "test").records, self.test_transform, strict=self.strict)

    def _files(self, domain: str, role: Role) -> DomainFiles:
        return self.layout.read(self.root, domain, role, self.shots)

    def _few(self, target: DomainFiles) -> list[Record]:
        if self.has_lists:
            return self._files(self.targets[0], "labelled").records
        places = draw_shots(torch.tensor([record.label for record in target.records]), self.shots, self.seed)
        return [target.records[place] for place in places.tolist()]

    def _kept(self, records: list[Record], held: bool) -> list[Record]:
        return hold_out(records, self.holdout, self.seed)[held]

    def _train(self, records: list[Record]) -> FileImages:
        return FileImages(records, self.train_transform, train=True, strict=self.strict)


def transforms(size: int, augmentation: Literal["resized-crop", "crop", "none"]) -> tuple[Any, Any]:
    """From a PIL image in RGB to a normalised tensor, in training and in testing.

    Args:
        size: Side of the crop.
        augmentation: See [`DomainImages`][saccade.adaptation.datasets.DomainImages].

    Returns:
        Both transforms.
    """
    end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    large = round(size * 8 / 7)
    if augmentation == "resized-crop":
        train = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
        return v2.Compose([*train, *end]), v2.Compose([v2.Resize(large), v2.CenterCrop(size), *end])
    if augmentation == "crop":
        train = [v2.Resize((large, large)), v2.RandomHorizontalFlip(), v2.RandomCrop(size)]
        return v2.Compose([*train, *end]), v2.Compose([v2.Resize((large, large)), v2.CenterCrop(size), *end])
    plain = v2.Compose([v2.Resize((size, size)), *end])
    return plain, plain


def hold_out(records: Sequence[Record], share: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Part records, at random.

    Args:
        records: What there is.
        share: Of those that are held out, in [0, 1).
        seed: Of the draw.

    Returns:
        Those that are kept and those that are held out, both in their order.
    """
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(mix(seed, 2))).tolist()
    chosen = set(order[: round(share * len(records))])
    kept, held = ([r for at, r in enumerate(records) if (at in chosen) == inside] for inside in (False, True))
    return kept, held


def same_classes(domains: dict[str, DomainFiles]) -> None:
    """Check that all domains have the same classes.

    Raises:
        ValueError: They differ; the message names some that only one of two domains has.
    """
    (first, known), *others = domains.items()
    for name, domain in others:
        if domain.names != known.names:
            mine, its = set(known.names.values()), set(domain.names.values())
            raise ValueError(
                f"the classes of {first} and {name} differ: "
                + (f"only {first} has {_some(mine - its)}; " if mine - its else "")
                + (f"only {name} has {_some(its - mine)}" if its - mine else "")
                + ("they are numbered differently" if mine == its else "")
            )


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def class_domain(folder: Path, what: str) -> DomainFiles:
    """The images of a domain that has a folder a class.

    Args:
        folder: With the classes' folders.
        what: What it is, for the message.

    Returns:
        The files; classes are numbered in the order of their names.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: Without folders, or without images.
    """
    classes = sorted(path for path in require(folder, what, "the data set's own page").iterdir() if path.is_dir())
    if not classes:
        raise ValueError(f"{folder} has no folders; one a class is wanted")
    return DomainFiles(class_folders(classes), {label: path.name for label, path in enumerate(classes)})


def _listed(file: Path, bases: Sequence[Path]) -> DomainFiles:
    """Lines `PATH LABEL`; the folder of an image names its class."""
    rows = list(_rows(file))
    base = next((base for base in bases if (base / rows[0][0]).exists()), bases[0])
    names: dict[int, str] = {}
    records = []
    for number, (path, label) in enumerate(rows, start=1):
        record = Record(base / path, label)
        if names.setdefault(label, record.path.parent.name) != record.path.parent.name:
            raise ValueError(
                f"{file}, line {number}: class {label} is {record.path.parent.name!r} here and {names[label]!r} before"
            )
        records.append(record)
    return DomainFiles(records, dict(sorted(names.items())))


def _rows(file: Path) -> Iterator[tuple[str, int]]:
    found = False
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdigit():
            raise ValueError(f"{file}, line {number}: wanted 'PATH LABEL', not {line.strip()[:80]!r}")
        found = True
        yield path, int(label)
    if not found:
        raise ValueError(f"{file} names no images")
