"""Pairs and groups of digit domains: made from scikit-learn's digits, or MNIST and USPS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.adaptation.datamodule import DomainSets
from saccade.adaptation.images import TensorImages
from saccade.data.images import LabelledImages, load_digits, load_mnist, load_usps
from saccade.data.loading import mix
from saccade.data.root import default_root
from saccade.worlds.digits import LOOKS, DigitLook, restyle

DigitDomain = Literal["digits", "mnist", "usps"]


@dataclass(frozen=True)
class DigitSplits:
    """A domain's digits: to train on, and to test on.

    Args:
        train: Images in [-1, 1].
        train_labels: Their classes; for a target nobody but the test may use them.
        test: Other images.
        test_labels: Their classes.
    """

    train: Float[Tensor, "n c h w"]
    train_labels: Int[Tensor, " n"]
    test: Float[Tensor, "m c h w"]
    test_labels: Int[Tensor, " m"]


def digit_domain(
    name: DigitDomain,
    look: str | DigitLook = "plain",
    *,
    part: int = 0,
    parts: int = 1,
    size: int = 16,
    channels: Literal[1, 3] = 1,
    seed: int = 0,
    root: Path | None = None,
) -> DigitSplits:
    """Digits in a look, scaled to [-1, 1].

    `digits` are scikit-learn's 1,797, of which a random third, the same for every seed, is for testing; `mnist` is the
    10,000 images of MNIST's test split, of which the last 2,000 are for testing; `usps` has its own two splits.

    Args:
        name: Whose digits.
        look: A look or the name of one.
        part: Which part of the training images, where several domains must not share any.
        parts: How many such parts there are.
        size: Side of the images.
        channels: Grey or RGB.
        seed: Of the looks and of the order of the training images.
        root: The data root.

    Returns:
        Both splits.

    Raises:
        ValueError: Unknown name, look or part.
        FileNotFoundError: MNIST or USPS is not there.

    Example:
        >>> digit_domain("digits", "faded", part=1, parts=2).train.shape
        torch.Size([599, 1, 16, 16])
    """
    if isinstance(look, str):
        if look not in LOOKS:
            raise ValueError(f"no look {look!r}; there is {', '.join(LOOKS)}")
        look = LOOKS[look]
    if not 0 <= part < parts:
        raise ValueError(f"part is {part} of {parts}; 0 to {parts - 1} is accepted")
    train, test = _splits(name, root or default_root())
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(mix(seed, 0)))[part::parts]
    made = [
        restyle(images, look, size=size, channels=channels, seed=seed, split=f"{name}/{split}", indices=places) * 2 - 1
        for split, images, places in (
            ("train", train.images[order], order.tolist()),
            ("test", test.images, range(len(test))),
        )
    ]
    return DigitSplits(made[0], train.labels[order], made[1], test.labels)


class DigitDomains(DomainSets):
    """Domains of digits in memory, for first steps, claims and tests.

    Args:
        sources: Each `SET` or `SET-LOOK`, such as `digits-bold` or `mnist`.
        targets: Likewise; the first is tested on.
        shots: Labelled images a class of the target; 0: none.
        size: Side of the images.
        channels: Grey or RGB.
        root: The data root, for MNIST and USPS.
        source_batch: Images of each source an iteration.
        target_batch: Images of each target.
        labelled_batch: Labelled images of the target.
        iterations: An epoch's.
        seed: Of looks, order and shots.

    Example:
        >>> data = DigitDomains(["digits"], ["digits-faded"])
        >>> len(data.test_images())
        599
    """

    def __init__(
        self,
        sources: Sequence[str] = ("digits",),
        targets: Sequence[str] = ("digits-faded",),
        shots: int = 0,
        size: int = 16,
        channels: Literal[1, 3] = 1,
        root: str | None = None,
        source_batch: int = 64,
        target_batch: int = 64,
        labelled_batch: int = 24,
        iterations: int = 160,
        seed: int = 0,
    ) -> None:
        names = [*sources, *targets]
        sets = [name.partition("-")[0] for name in names]
        made = []
        for place, name in enumerate(names):
            kind, _, look = name.partition("-")
            if kind not in ("digits", "mnist", "usps"):
                raise ValueError(f"no digits {kind!r} (of {name!r}); there is digits, mnist, usps")
            known: DigitDomain = kind  # type: ignore[assignment]
            # domains that come from one set share no drawing
            part, parts = sets[:place].count(kind), sets.count(kind)
            folder = Path(root) if root else None
            made.append(
                digit_domain(
                    known, look or "plain", part=part, parts=parts, size=size, channels=channels, seed=seed, root=folder
                )
            )
        target = made[len(sources)]
        few = draw_shots(target.train_labels, shots, seed) if shots else None
        super().__init__(
            [TensorImages(domain.train, domain.train_labels) for domain in made[: len(sources)]],
            [TensorImages(domain.train) for domain in made[len(sources) :]],
            None if few is None else TensorImages(target.train[few], target.train_labels[few]),
            test=TensorImages(target.test, target.test_labels),
            source_batch=source_batch,
            target_batch=target_batch,
            labelled_batch=labelled_batch,
            iterations=iterations,
            seed=seed,
        )


def draw_shots(labels: Int[Tensor, " n"], shots: int, seed: int) -> Int[Tensor, " m"]:
    """Places of `shots` images of each class, drawn by `seed`: those whose labels somebody has given.

    Args:
        labels: Classes.
        shots: Images a class.
        seed: Of the draw.

    Returns:
        Their places, class by class.

    Raises:
        ValueError: A class has fewer.

    Example:
        >>> draw_shots(torch.tensor([0, 1, 1]), 1, seed=0).shape
        torch.Size([2])
    """
    generator = torch.Generator().manual_seed(mix(seed, 1))
    chosen = []
    for label in labels.unique().tolist():
        places = (labels == label).nonzero().flatten()
        if len(places) < shots:
            raise ValueError(f"class {label} has {len(places)} images; {shots} labelled ones a class are wanted")
        chosen.append(places[torch.randperm(len(places), generator=generator)[:shots]])
    return torch.cat(chosen)


def _splits(name: str, root: Path) -> tuple[LabelledImages, LabelledImages]:
    if name == "usps":
        return load_usps(root, "train"), load_usps(root, "test")
    if name == "mnist":
        return _halves(load_mnist(root, "test"), torch.arange(10_000), 8_000)
    if name == "digits":
        digits = load_digits()
        return _halves(digits, torch.randperm(len(digits), generator=torch.Generator().manual_seed(0)), 1_198)
    raise ValueError(f"no digits {name!r}; there is digits, mnist, usps")


def _halves(images: LabelledImages, order: Tensor, first: int) -> tuple[LabelledImages, LabelledImages]:
    parts = (order[:first], order[first:])
    train, test = (LabelledImages(images.images[part], images.labels[part], images.names) for part in parts)
    return train, test
