"""What the claims of this domain share: digit domains, training of any method on them, and what is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from saccade.adaptation.datamodule import DomainSets
from saccade.adaptation.digits import DigitDomains
from saccade.adaptation.images import ImageSet, TensorImages, answers
from saccade.adaptation.method import AdaptationMethod
from saccade.adaptation.pictures import answer_sheet, embedding_map
from saccade.adaptation.task import DomainAdaptation
from saccade.claims import Cell, Data
from saccade.training import fit

NAMES = tuple("0123456789")


def digit_data(seeds: int | None = None, **settings: Any) -> dict[str, Data]:
    """The pairs of domains that claims run on; `sources` and `targets` are among their settings.

    Args:
        seeds: Number of seeds where it is not the budget's.
        settings: Added to each one's.

    Returns:
        Name to data: `digits` (embedded), `mnist-usps`, `usps-mnist`, `mnist-usps-look`.
    """
    look = "grey at 0.15 + 0.4 ink + 0.45 coarse noise"
    pairs = {
        "digits": (f"scikit-learn's 1,797 digits at 16 x 16; the target's are others of them, {look}", "", "faded"),
        "mnist-usps": ("MNIST (10,000 images) to USPS, both at 16 x 16", "usps", "plain"),
        "usps-mnist": ("USPS to MNIST (10,000 images), both at 16 x 16", "usps", "plain"),
        "mnist-usps-look": (f"MNIST (10,000 images) to USPS, which is {look}; 16 x 16", "usps", "faded"),
    }
    made = {}
    for name, (title, needs, target) in pairs.items():
        first, _, second = name.removesuffix("-look").partition("-")
        domains = {"sources": (first,), "targets": (f"{second or first}-{target}",)}
        made[name] = Data(title, needs=needs, seeds=seeds, settings={**domains, **settings})
    return made


def domains_of(cell: Cell, iterations: int, **settings: Any) -> DigitDomains:
    """The domains that a cell's settings name, the same for all arms of a seed.

    Args:
        cell: Its settings have `sources` and `targets`.
        iterations: Of an epoch.
        settings: Further ones of `DigitDomains`, such as `shots` or batch sizes.

    Returns:
        The data.
    """
    return DigitDomains(
        cell.settings["sources"],
        cell.settings["targets"],
        root=str(cell.data_root),
        iterations=iterations,
        seed=cell.seed,
        **settings,
    )


def train(
    cell: Cell,
    method: AdaptationMethod,
    data: DomainSets,
    *,
    optimizer: Callable[[Iterable], Optimizer] = lambda groups: Adam(groups, lr=1e-3),
    lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
) -> list[tuple[float, float]]:
    """Train a method for one epoch of the data; the last iterate is what counts.

    Args:
        cell: Whose seed, device and progress are used.
        method: Trained in place; in evaluation mode afterwards.
        data: The domains.
        optimizer: Makes each player's optimiser.
        lr_scheduler: Makes its schedule, a step an iteration.

    Returns:
        The training loss as (iteration, loss) points.
    """
    task = DomainAdaptation(method, optimizer, lr_scheduler)
    curve = fit(task, data, epochs=1, seed=cell.seed, device=cell.device, progress=cell.progress)
    method.eval()
    return curve


def accuracy(method: AdaptationMethod, images: ImageSet, device: torch.device) -> float:
    """Accuracy in percent on labelled images of the target."""
    return 100 * float((answers(method, images, device)[0].labels == _known(images)).float().mean())


def shown(method: AdaptationMethod, data: DigitDomains, device: torch.device) -> dict[str, np.ndarray]:
    """A map of the features of the first source and the target, and the target's first test images with the answers."""
    source, test = data.train_images()[0][0], data.test_images()
    parts = {"source": answers(method, source, device, 0)[0], "target (test)": answers(method, test, device)[0]}
    classes = {"source": _known(source), "target (test)": _known(test)}
    features = {name: part.embeddings for name, part in parts.items()}
    few = min(64, len(test))
    sheet, said, actual = test.load(torch.arange(few)).images, parts["target (test)"].labels[:few], _known(test)[:few]
    return {
        "features of source and target (t-SNE)": embedding_map(features, classes, NAMES),
        "answers on the target": answer_sheet(sheet, said, actual),
    }


def _known(images: ImageSet) -> Tensor:
    if not isinstance(images, TensorImages) or images.labels is None:
        raise ValueError("these images have no labels")
    return images.labels
