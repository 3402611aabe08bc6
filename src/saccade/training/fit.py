"""`fit` for claims: the same task and data module as the recipe's, trained quietly for so many steps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from saccade.training.data import DataModule
from saccade.training.resume import StepSeeds
from saccade.training.task import Task


class LossCurve(Callback):
    """Collects the training loss and reports how far the run is.

    Args:
        points: About how many points to keep; each is the mean of the steps since the last.
        progress: Called with the share that is done.
    """

    def __init__(self, points: int = 60, progress: Callable[[float], None] | None = None) -> None:
        self.points = points
        self.progress = progress
        self.curve: list[tuple[float, float]] = []
        self._recent: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._recent.append(float(loss.detach()))
        # in batches: where several optimisers take turns, Lightning counts the steps of each
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        total = int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches
        if len(self._recent) >= max(1, total // self.points):
            self.curve.append((float(done), sum(self._recent) / len(self._recent)))
            self._recent.clear()
            if self.progress:
                self.progress(min(done / max(total, 1), 1.0))


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Lightning says nothing of its own."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


def fit(
    task: Task,
    data: DataModule | DataLoader[Any],
    *,
    steps: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
    **trainer: Any,
) -> list[tuple[float, float]]:
    """Train a task without files, logs or bars.

    Args:
        task: What is trained, in place.
        data: What it is trained on.
        steps: Optimiser steps.
        epochs: Epochs; one of the two is given.
        seed: Of what the steps draw.
        device: Where to compute.
        progress: Called with the share that is done.
        trainer: Further arguments of Lightning's Trainer, such as `gradient_clip_val`.

    Returns:
        The training loss as (step, loss) points.
    """
    if (steps is None) == (epochs is None):
        raise ValueError("training takes either steps or epochs")
    device = torch.device(device)
    curve = LossCurve(progress=progress)
    with quiet():
        engine = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            max_steps=steps if steps is not None else -1,
            max_epochs=epochs if epochs is not None else -1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[StepSeeds(seed), curve],
            **trainer,
        )
        engine.fit(task, data)
    task.to(device)
    return curve.curve
