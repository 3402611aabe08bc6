"""One Lightning task for domain adaptation: any method, its players taking their steps in turn."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.aggregation import CatMetric

from saccade.adaptation.images import Loaded
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Moment, Predictions
from saccade.training.task import OptimizerFactory, SchedulerFactory, Task, adamw


class DomainAdaptation(Task):
    """Trains an adaptation method.

    Each player of the method has an optimiser and a schedule of its own, made alike; its parameter groups may differ
    in their learning rates. Lightning counts each player's step as one, so the length of training is given in epochs
    (`trainer.max_epochs`, of `data.iterations` each), and gradients are accumulated and clipped here, not by the
    Trainer. While fitting, nothing asks for a label of the target.

    Args:
        method: What is trained.
        optimizer: Makes each player's optimiser.
        lr_scheduler: Makes its schedule, which steps once an iteration.
        accumulate: Iterations whose gradients are joined before the players step.
        clip_norm: Largest norm of a player's gradient; none where `None`.
    """

    def __init__(
        self,
        method: AdaptationMethod,
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, "step")
        if accumulate < 1:
            raise ValueError(f"accumulate is {accumulate}; at least 1 is accepted")
        self.automatic_optimization = False
        self.method = method
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self._answers = {stage: (CatMetric(), CatMetric()) for stage in ("val", "test")}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Probabilities of the classes, for images of the target."""
        return self.method.predict(images).probabilities

    def configure_optimizers(self) -> Any:
        """An optimiser and a schedule a player, in the order of `players`."""
        pairs = [self.make(groups) for groups in self.method.players().values()]
        return [optimizer for optimizer, _ in pairs], [scheduler for _, scheduler in pairs if scheduler is not None]

    def training_step(self, batch: DomainBatch, batch_idx: int) -> Tensor:
        """The players' steps; gives the sum of their losses."""
        optimizers = dict(zip(self.method.players(), self._listed(self.optimizers()), strict=True))
        first = batch_idx % self.accumulate == 0
        last = (batch_idx + 1) % self.accumulate == 0
        losses: dict[str, Tensor] = {}
        for player, loss in self.method.updates(batch, self.moment(batch_idx)):
            self.finite(loss)
            optimizer = optimizers[player]
            if first:
                optimizer.zero_grad()
            self.manual_backward(loss / self.accumulate)
            if last:
                if self.clip_norm is not None:
                    self.clip_gradients(optimizer, self.clip_norm, "norm")
                optimizer.step()
            losses[player] = losses.get(player, 0) + loss.detach()
        with warnings.catch_warnings():
            # a player may wait while others train (DeCoTa's second network): its schedule goes on all the same
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for scheduler in self._listed(self.lr_schedulers()):
                scheduler.step()
        total = torch.stack(list(losses.values())).sum()
        self.log("train/loss", total, prog_bar=True)
        shown = {f"train/{player}": loss for player, loss in losses.items()} if len(losses) > 1 else {}
        self.log_dict({**shown, **{f"train/{name}": value for name, value in self.method.measures().items()}})
        return total

    def moment(self, batch_idx: int) -> Moment:
        """Where training is, in iterations.

        Raises:
            ValueError: The Trainer has no number of epochs.
        """
        epochs, batches = self.trainer.max_epochs, int(self.trainer.num_training_batches)
        if epochs is None or epochs < 0:
            raise ValueError("the length of adaptation is given in epochs: set trainer.max_epochs and data.iterations")
        return Moment(self.current_epoch * batches + batch_idx, epochs * batches)

    def validation_step(self, batch: Loaded, batch_idx: int) -> None:
        """Collect answers on what is held out."""
        self._collect("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Accuracy on what is held out."""
        self._report("val")

    def test_step(self, batch: Loaded, batch_idx: int) -> None:
        """Collect answers on the target."""
        self._collect("test", batch)

    def on_test_epoch_end(self) -> None:
        """Accuracy on the target, over images and as the mean over classes."""
        self._report("test")

    def predict_step(self, batch: Loaded | Tensor, batch_idx: int) -> Predictions:
        """Probabilities and features of a batch."""
        return self.method.predict(batch if isinstance(batch, Tensor) else batch.images)

    def _collect(self, stage: str, batch: Loaded) -> None:
        if batch.labels is None:
            raise ValueError("the images to evaluate on have no labels")
        predicted, actual = self._answers[stage]
        predicted.to(self.device).update(self.method.predict(batch.images).labels)
        actual.to(self.device).update(batch.labels)

    def _report(self, stage: Literal["val", "test"]) -> None:
        predicted, actual = (metric.compute() for metric in self._answers[stage])
        for metric in self._answers[stage]:
            metric.reset()
        right = (predicted == actual).float()
        classes = [float(right[actual == label].mean()) for label in actual.unique()]
        self.log(f"{stage}/accuracy", float(right.mean()), prog_bar=True)
        self.log(f"{stage}/mean_class_accuracy", sum(classes) / len(classes))

    @staticmethod
    def _listed(found: Any) -> list[Any]:
        return found if isinstance(found, list) else [] if found is None else [found]
