"""The Lightning task of an architecture search: supernet and distribution, with exact resume and several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchmetrics import Accuracy

from saccade.action.autox3d import X3DSearchSpace
from saccade.action.search_data import HELD_OUT
from saccade.action.x3d_search import block_groups
from saccade.action.x3d_supernet import X3DSupernet
from saccade.data.loading import mix
from saccade.nn.architectures import CategoricalArchitectureDistribution
from saccade.nn.probabilistic_search import ProbabilisticSearch
from saccade.ops.collective import process_count, sum_over_processes
from saccade.training.task import OptimizerFactory, SchedulerFactory, Task, adamw


def adam(params: Iterable) -> torch.optim.Optimizer:
    """Adam with a learning rate of 0.025, the paper's for the distribution."""
    return torch.optim.Adam(params, lr=0.025)


class X3DSearch(Task):
    """Search a network of the X3D kind for a budget of multiply-adds.

    A batch is a dict with `video` and `label`, and the same of held-out clips under `held_out`, as
    [`SearchData`][saccade.action.search_data.SearchData] gives it. In the warm-up the shared weights are trained alone,
    then both. After every epoch `architecture.json` in the run folder is the architecture found so far: the most
    probable one that keeps to the target.

    Args:
        space: What may be chosen.
        target: Multiply-adds that a clip may cost; `None`: as many as X3D's own choices in the space.
        warmup_epochs: Epochs in which the distribution stays uniform.
        cost_weight: Nats that a cost of twice the target takes away.
        sharpness: Factor of the mean log-likelihood in the weights of samples.
        sample_factor: Samples a nat of entropy.
        min_samples: At least so many architectures a step.
        max_samples: At most so many.
        joint: Whether the choices of a block have one distribution together, instead of one each.
        dropout: Before the classifier.
        draws: Seed of the architectures drawn, the same in all processes.
        optimizer: Makes the optimiser of the shared weights.
        architecture_optimizer: Makes that of the distribution.
        lr_scheduler: Makes the schedule of the shared weights' optimiser.
        schedule: Whether that steps by epoch or by step.

    Raises:
        ValueError: A target or epochs that are none.
    """

    def __init__(
        self,
        space: X3DSearchSpace,
        target: float | None = None,
        warmup_epochs: int = 200,
        cost_weight: float = 10.0,
        sharpness: float = 10.0,
        sample_factor: float = 0.25,
        min_samples: int = 2,
        max_samples: int = 14,
        joint: bool = False,
        dropout: float = 0.0,
        draws: int = 0,
        optimizer: OptimizerFactory = adamw,
        architecture_optimizer: OptimizerFactory = adam,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(optimizer, lr_scheduler, schedule)
        self.automatic_optimization = False
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs has to be 0 or more, not {warmup_epochs}")
        self.space, self.warmup_epochs, self.draws = space, warmup_epochs, draws
        self.draw = torch.Generator()
        self.make_architecture_optimizer = architecture_optimizer
        self.supernet = X3DSupernet(space, dropout)
        groups = block_groups(space) if joint else None
        self.distribution = CategoricalArchitectureDistribution(space.space, groups)
        self.costs = space.cost()
        self.target = float(self.costs(space.x3d()[None])) if target is None else target
        self.search = ProbabilisticSearch(
            self.supernet.log_likelihood,
            self.distribution,
            self.costs,
            self.target,
            cost_weight=cost_weight,
            sharpness=sharpness,
            sample_factor=sample_factor,
            min_samples=min_samples,
            max_samples=max_samples,
            parameters=list(self.supernet.parameters()),
            generator=self.draw,
            agree=average_over_processes,
        )
        classes = space.num_classes
        self.top1 = Accuracy(task="multiclass", num_classes=classes, average="micro")

    def configure_optimizers(self) -> Any:
        """One optimiser for the shared weights, with its schedule, and one for the distribution."""
        weights = self.make_optimizer([{"params": self.search.parameters}])
        architectures = self.make_architecture_optimizer([{"params": list(self.distribution.parameters())}])
        schedules = [self.make_scheduler(weights)] if self.make_scheduler is not None else []
        return [weights, architectures], schedules

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """One step of the weights, and after the warm-up one of the distribution."""
        both: Any = self.optimizers()
        weights, architectures = both
        warm = self.current_epoch < self.warmup_epochs
        self.draw.manual_seed(mix(self.draws, self.current_epoch, batch_idx))
        sampled = self.search.weight_gradients(batch, uniform=warm)
        average_gradients(self.search.parameters)
        weights.step()
        if not warm:
            sampled = self.search.architecture_gradients(batch[HELD_OUT])
            architectures.step()
        schedule: Any = self.lr_schedulers()
        if schedule is not None and self.schedule == "step":
            schedule.step()
        figures = {"loss": sampled.loss, "entropy": sampled.entropy, "samples": float(len(sampled.weights))}
        self.log_dict({f"train/{key}": value for key, value in figures.items()}, batch_size=len(batch["label"]))
        return self.finite(torch.tensor(sampled.loss))

    def on_train_epoch_end(self) -> None:
        """Step the schedule, and write what has been found so far."""
        schedule: Any = self.lr_schedulers()
        if schedule is not None and self.schedule == "epoch":
            schedule.step()
        with torch.no_grad():
            self.log("train/expected_cost", self.distribution.expected_cost(self.costs) / self.target)
        if self.trainer.is_global_zero:
            path = Path(self.trainer.default_root_dir) / "architecture.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            found = self.space.decode(self.found())
            found.save(path)
            cost = found.cost(self.space.num_classes)
            millions = f"{cost.multiply_adds / 1e6:.1f} M multiply-adds, {cost.parameters / 1e6:.2f} M parameters"
            rank_zero_info(f"{path}: {millions}")

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Top-1 of the architecture found so far, with shared weights and the statistics of the batch."""
        if len(batch["label"]):
            video = batch["video"].flatten(0, 1) if batch["video"].ndim == 6 else batch["video"]
            logits = self.supernet(video, self.found()).unflatten(0, (len(batch["label"]), -1)).mean(1)
            self.top1.update(logits, batch["label"])
        self.log("val/top1", self.top1, on_epoch=True, prog_bar=True, batch_size=max(len(batch["label"]), 1))

    def found(self) -> Tensor:
        """The most probable architecture that keeps to the target."""
        return self.search.derive(within=self.target)


def average_over_processes(value: Tensor) -> Tensor:
    """The mean over processes, entry by entry."""
    return sum_over_processes(value) / process_count()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients by their mean over processes, which have all drawn the same architectures."""
    if process_count() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = average_over_processes(parameter.grad)
