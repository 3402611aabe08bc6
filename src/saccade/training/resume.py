"""Exact resume: after a kill, the same command goes on and ends with the weights of an uninterrupted run."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from saccade.data.loading import mix


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint is there whole or not at all, whenever the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write beside, then rename."""
        target = Path(path)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        super().save_checkpoint(checkpoint, partial, storage_options)
        partial.replace(target)


class StepSeeds(Callback):
    """Seeds the global generators before every step from (seed, epoch, batch, process).

    Dropout and whatever else a step draws is then a function of where the step is, not of what came before.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed."""
        seed = mix(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: after every epoch, and within epochs every so many steps.

    Args:
        folder: Where it goes.
        every_n_steps: Batches between checkpoints within an epoch; 0: only at the ends of epochs.
    """

    def __init__(self, folder: str | Path, every_n_steps: int = 500) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps is {every_n_steps}; 0 or more is accepted")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch, between optimiser steps."""
        done = batch_idx + 1
        due = self.every_n_steps and done % self.every_n_steps == 0 and done % trainer.accumulate_grad_batches == 0
        if due and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of the epoch."""
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.path, weights_only=False)
