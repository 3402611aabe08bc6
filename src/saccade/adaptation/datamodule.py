"""Batches of several domains, and the one data module behind every way to hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from saccade.adaptation.images import ImageSet, Loaded
from saccade.adaptation.method import DomainBatch, Labelled
from saccade.data.loading import mix
from saccade.ops.collective import process_count
from saccade.training.data import DataModule


class DomainBatches(Dataset[DomainBatch]):
    """An iteration's whole batch an item, balanced over domains.

    Each domain goes through permutations of its own, one after the other, so that a small domain comes round again
    before a large one has been seen. Of the targets no label is read.

    Args:
        sources: Labelled.
        targets: Their labels are not used, if there are any.
        labelled_target: The few labelled images of the target.
        sizes: Images an iteration and a process, of each source, of each target, and of the labelled target images; of
            these at most as many as there are.
        length: Iterations an epoch, times the number of processes.
        seed: Of the permutations.

    Raises:
        ValueError: No source or target, a source without labels, or sizes below 1.
    """

    def __init__(
        self,
        sources: Sequence[ImageSet],
        targets: Sequence[ImageSet],
        labelled_target: ImageSet | None,
        sizes: tuple[int, int, int],
        length: int,
        seed: int,
    ) -> None:
        if not sources or not targets:
            raise ValueError(
                f"there are {len(sources)} sources and {len(targets)} targets; at least one each is wanted"
            )
        if min(sizes) < 1 or length < 1:
            raise ValueError(f"batch sizes {sizes} and {length} iterations are at least 1 each")
        for part in [*sources, *([labelled_target] if labelled_target else [])]:
            if part.labels is None:
                raise ValueError("a source, or the labelled part of the target, has no labels")
        self.sources = list(sources)
        self.targets = list(targets)
        self.labelled_target = labelled_target
        self.sizes = sizes
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def order(self, generator: torch.Generator) -> Tensor:
        """The places of an epoch: each says which of many epochs it belongs to, and which iteration of it is meant."""
        epoch = int(torch.randint(2**31, (), generator=generator))
        return epoch * self.length + torch.arange(self.length)

    def __getitem__(self, place: int) -> DomainBatch:
        """The batch of an iteration."""
        epoch, iteration = divmod(place, self.length)
        domains = [(part, self.sizes[0]) for part in self.sources] + [(part, self.sizes[1]) for part in self.targets]
        if self.labelled_target is not None:
            domains.append((self.labelled_target, min(self.sizes[2], len(self.labelled_target))))
        drawn = [
            part.load(self._places(number, len(part), size, epoch, iteration))
            for number, (part, size) in enumerate(domains)
        ]
        count = len(self.sources)
        few = _labelled(drawn[-1]) if self.labelled_target is not None else None
        targets = drawn[count : count + len(self.targets)]
        return DomainBatch([_labelled(part) for part in drawn[:count]], [part.images for part in targets], few)

    def _places(self, domain: int, length: int, size: int, epoch: int, iteration: int) -> Tensor:
        """The next `size` places of the domain's permutations."""
        wanted = torch.arange(iteration * size, (iteration + 1) * size)
        rounds = wanted // length
        found = torch.empty_like(wanted)
        for number in range(int(rounds[0]), int(rounds[-1]) + 1):
            generator = torch.Generator().manual_seed(mix(self.seed, epoch, domain, number))
            permutation = torch.randperm(length, generator=generator)
            inside = rounds == number
            found[inside] = permutation[wanted[inside] - number * length]
        return found


class EvaluationBatches(Dataset[Loaded]):
    """A set in its order, a batch an item.

    Args:
        images: The set.
        size: Images a batch.
    """

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images = images
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __getitem__(self, place: int) -> Loaded:
        """The batch of a place."""
        start = place * self.size
        return self.images.load(torch.arange(start, min(start + self.size, len(self.images))))


class DomainData(DataModule):
    """Sources and targets, labelled and not. The labels of the target can be read in testing, never in fitting.

    A subclass says what there is: `train_images`, and where it has them `held_out` and `test_images`.

    Args:
        source_batch: Images of each source an iteration and a process.
        target_batch: Images of each target.
        labelled_batch: Labelled images of the target, at most all there are.
        iterations: An epoch's.
        num_workers: Processes that load; 0: the training process itself.
        seed: Of order and augmentation.
        evaluation_batch: Images a batch of validation and test.
    """

    def __init__(
        self,
        source_batch: int = 32,
        target_batch: int = 32,
        labelled_batch: int = 24,
        iterations: int = 500,
        num_workers: int = 0,
        seed: int = 0,
        evaluation_batch: int = 256,
    ) -> None:
        super().__init__(1, num_workers, seed)  # a batch is one item of the data set
        self.sizes = (source_batch, target_batch, labelled_batch)
        self.iterations = iterations
        self.evaluation_batch = evaluation_batch
        self.collate = _only

    def train_images(self) -> tuple[Sequence[ImageSet], Sequence[ImageSet], ImageSet | None]:
        """Sources, targets, and the labelled images of the target if there are any."""
        raise ValueError(f"{type(self).__name__} has nothing to train on")

    def held_out(self) -> ImageSet | None:
        """Labelled images to validate on while fitting: of a source, or of the target's labelled few."""
        return None

    def test_images(self) -> ImageSet:
        """Labelled images of the target."""
        raise ValueError(f"{type(self).__name__} has nothing to test on")

    def predict_images(self) -> ImageSet:
        """Images to predict; those of the test where nothing else is given."""
        return self.test_images()

    def train_set(self) -> DomainBatches:
        """The iterations of an epoch."""
        sources, targets, few = self.train_images()
        return DomainBatches(sources, targets, few, self.sizes, self.iterations * process_count(), self.seed)

    def train_order(self, dataset: Dataset[Any], generator: torch.Generator) -> Tensor:
        """The data set's own."""
        return (
            dataset.order(generator) if isinstance(dataset, DomainBatches) else super().train_order(dataset, generator)
        )

    def val_dataloader(self) -> Any:
        """What is held out; nothing where there is nothing."""
        images = self.held_out()
        return [] if images is None else self._loader(EvaluationBatches(images, self.evaluation_batch))

    def test_set(self) -> EvaluationBatches:
        """The target with its labels.

        Raises:
            RuntimeError: In fitting, where nothing may look at them.
        """
        if self.trainer is not None and self.trainer.state.fn == "fit":
            raise RuntimeError("the labels of the target are not to be had while fitting")
        return EvaluationBatches(self.test_images(), self.evaluation_batch)

    def predict_set(self) -> EvaluationBatches:
        """What is to be predicted."""
        return EvaluationBatches(self.predict_images(), self.evaluation_batch)


class DomainSets(DomainData):
    """Sets that are there already, in memory or as lists of files.

    Args:
        sources: Labelled.
        targets: Only their images are used.
        labelled_target: The few labelled images of the target.
        validation: Labelled, to validate on; see `DomainData.held_out`.
        test: Images of the target with labels, to test on.
        settings: Those of `DomainData`.

    Example:
        >>> from saccade.adaptation.images import TensorImages
        >>> source = TensorImages(torch.rand(20, 1, 8, 8), torch.arange(20) % 4)
        >>> data = DomainSets([source], [TensorImages(torch.rand(9, 1, 8, 8))], source_batch=6, target_batch=3)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch.sources[0].images.shape, batch.targets[0].shape
        (torch.Size([6, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
    """

    def __init__(
        self,
        sources: Sequence[ImageSet],
        targets: Sequence[ImageSet],
        labelled_target: ImageSet | None = None,
        validation: ImageSet | None = None,
        test: ImageSet | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.parts = (sources, targets, labelled_target)
        self.validation = validation
        self.test = test

    def train_images(self) -> tuple[Sequence[ImageSet], Sequence[ImageSet], ImageSet | None]:
        """As given."""
        return self.parts

    def held_out(self) -> ImageSet | None:
        """As given."""
        return self.validation

    def test_images(self) -> ImageSet:
        """As given."""
        return self.test if self.test is not None else super().test_images()


def _labelled(part: Loaded) -> Labelled:
    if part.labels is None:
        raise ValueError("a labelled domain gave images without labels")
    return Labelled(part.images, part.labels)


def _only(items: list[Any]) -> Any:
    return items[0]
