"""One Lightning task for node classification: a base predictor, then Correct and Smooth on top of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.graph.base import Features
from saccade.graph.correct_and_smooth import CorrectAndSmooth, Mode
from saccade.graph.datamodule import NodeBatch
from saccade.graph.tuning import draw_settings, tune
from saccade.training.task import OptimizerFactory, SchedulerFactory, Task, adamw


@dataclass
class NodePredictions:
    """What the task predicts, for all nodes.

    Args:
        base: The base predictor's probabilities.
        scores: What Correct and Smooth makes of them.
    """

    base: Float[Tensor, "n k"]
    scores: Float[Tensor, "n k"]


class NodeClassification(Task):
    """Trains a base predictor on the full batch; tests it alone and with Correct and Smooth.

    The state with the best validation accuracy is kept, as in the paper, and is what test and prediction use. The
    settings of Correct and Smooth are chosen on the validation nodes.

    Args:
        model: Features of nodes to logits, such as [`MLP`][saccade.graph.base.MLP].
        num_trials: Random settings of Correct and Smooth to choose from.
        mode: Their mode: `autoscale` or `fixed`.
        optimizer: Makes the optimiser.
        lr_scheduler: Makes its schedule.
        schedule: Whether it steps once an epoch or once a step; an epoch is one step here.
    """

    best_accuracy: Tensor

    def __init__(
        self,
        model: nn.Module,
        num_trials: int = 100,
        mode: Mode = "autoscale",
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(optimizer, lr_scheduler, schedule)
        self.model = model
        self.kept = copy.deepcopy(model).requires_grad_(False)
        self.num_trials = num_trials
        self.mode = mode
        self.register_buffer("best_accuracy", torch.tensor(-1.0))

    def forward(self, features: Features) -> Float[Tensor, "n k"]:
        """Logits of the kept state."""
        return self.kept(features)

    def training_step(self, batch: NodeBatch, batch_idx: int) -> Tensor:
        """Cross entropy on the training nodes."""
        logits = self.model(batch.train_features)
        loss = self.finite(F.cross_entropy(logits, batch.labels[batch.split.train]))
        self.log("train/loss", loss, batch_size=len(logits))
        return loss

    def validation_step(self, batch: NodeBatch, batch_idx: int) -> None:
        """Accuracy on the validation nodes; the best state is kept."""
        accuracy = _accuracy(self.model(batch.features), batch.labels, batch.split.valid)
        self.log("val/accuracy", accuracy, prog_bar=True, batch_size=1)
        if not self.trainer.sanity_checking and accuracy > self.best_accuracy:
            self.best_accuracy.copy_(accuracy)
            self.kept.load_state_dict(self.model.state_dict())

    def test_step(self, batch: NodeBatch, batch_idx: int) -> None:
        """Accuracy on the test nodes: of the base predictor, with Correct and Smooth, and with validation labels."""
        labels, split = batch.labels, batch.split
        base = self._base(batch)
        setting = self.choose(base, batch)
        known = torch.cat([split.train, split.valid])
        figures = {
            "test/base_accuracy": base,
            "test/accuracy": setting(base, labels, split.train, batch.graph),
            "test/accuracy_with_valid_labels": setting(base, labels, known, batch.graph),
        }
        for name, scores in figures.items():
            self.log(name, _accuracy(scores, labels, split.test), batch_size=1)

    def predict_step(self, batch: NodeBatch, batch_idx: int) -> NodePredictions:
        """Base probabilities and smoothed scores of all nodes."""
        base = self._base(batch)
        return NodePredictions(base, self.choose(base, batch)(base, batch.labels, batch.split.train, batch.graph))

    def choose(self, base: Float[Tensor, "n k"], batch: NodeBatch) -> CorrectAndSmooth:
        """The settings of Correct and Smooth that are best on the validation nodes."""
        settings = draw_settings(self.num_trials, 0, [self.mode])
        return tune(base, batch.labels, batch.split.train, batch.split.valid, batch.graph, settings).best

    def _base(self, batch: NodeBatch) -> Float[Tensor, "n k"]:
        self.kept.eval()
        return self.kept(batch.features).float().softmax(1)


def _accuracy(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"], nodes: Int[Tensor, " v"]) -> Tensor:
    return (scores[nodes].argmax(1) == labels[nodes]).float().mean()
