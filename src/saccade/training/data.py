"""The base of every Lightning data module: exact resume, and one place for batch size, workers and seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saccade.data.loading import EpochSampler, make_loader


class DataModule(LightningDataModule):
    """Subclasses say what the sets are; this says how they are loaded.

    A subclass overrides those of `train_set`, `val_set`, `test_set` and `predict_set` that it has. Its order of an
    epoch is a random permutation unless it overrides `train_order`.

    Args:
        batch_size: Samples a step and a process.
        num_workers: Processes that load; 0: the training process itself.
        seed: Of the order and the augmentation.
        drop_last: Leave out the last batch of a training epoch where it is not full.
    """

    def __init__(self, batch_size: int = 32, num_workers: int = 0, seed: int = 0, drop_last: bool = True) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is accepted")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.drop_last = drop_last
        self._position = (0, 0)

    collate: Callable[[list[Any]], Any] | None = None
    """Joins samples to a batch; torch's own where `None`."""

    def train_set(self) -> Dataset[Any]:
        """What is trained on."""
        raise ValueError(f"{type(self).__name__} has no training set")

    def val_set(self) -> Dataset[Any]:
        """What is validated on."""
        raise ValueError(f"{type(self).__name__} has no validation set")

    def test_set(self) -> Dataset[Any]:
        """What is tested on; the validation set where a data set has no other."""
        return self.val_set()

    def predict_set(self) -> Dataset[Any]:
        """What is predicted; the test set where nothing else is given."""
        return self.test_set()

    def train_order(self, dataset: Dataset[Any], generator: torch.Generator) -> Tensor:
        """The indices of an epoch, in order."""
        return torch.randperm(len(dataset), generator=generator)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches, from where a resumed run stopped."""
        dataset = self.train_set()
        epoch, batch = self._position
        sampler = EpochSampler(
            len(dataset),  # type: ignore[arg-type]
            seed=self.seed,
            order=lambda generator: self.train_order(dataset, generator),
            epoch=epoch,
            start=batch * self.batch_size,
        )
        return self._loader(dataset, sampler, drop_last=self.drop_last and len(sampler) >= self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches, in order; every sample once, over all processes."""
        return self._loader(self.val_set())

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches, in order; every sample once."""
        return self._loader(self.test_set())

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches to predict, in order."""
        return self._loader(self.predict_set())

    def state_dict(self) -> dict[str, Any]:
        """Where training is: the epoch, and the batches of it that are done."""
        if self.trainer is None:
            return {}
        epochs: Any = self.trainer.fit_loop.epoch_progress.current
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        if batches.is_last_batch:
            return {"epoch": epochs.started, "batch": 0}
        return {"epoch": epochs.processed, "batch": batches.current.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start there."""
        self._position = state_dict.get("epoch", 0), state_dict.get("batch", 0)

    def _loader(
        self, dataset: Dataset[Any], sampler: EpochSampler | None = None, drop_last: bool = False
    ) -> DataLoader[Any]:
        return make_loader(
            dataset,
            self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=drop_last,
            collate=self.collate,
        )
