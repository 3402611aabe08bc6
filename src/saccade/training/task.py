"""The base of every Lightning task: optimiser and schedule from the configuration, and a guard against divergence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

OptimizerFactory = Callable[[Iterable], Optimizer]
"""Parameters, or groups of them, to an optimiser; in YAML a `class_path` with `init_args`."""

SchedulerFactory = Callable[[Optimizer], LRScheduler]
"""An optimiser to its schedule; in YAML a `class_path` with `init_args`."""


def adamw(params: Iterable) -> Optimizer:
    """AdamW with a learning rate of 1e-3: the optimiser where none is configured."""
    return torch.optim.AdamW(params, lr=1e-3)


class Task(LightningModule):
    """A LightningModule whose optimiser and schedule are arguments.

    Args:
        optimizer: Makes the optimiser of the groups that `param_groups` gives.
        lr_scheduler: Makes its schedule; none where `None`.
        schedule: Whether the schedule steps once an epoch or once a step.
    """

    def __init__(
        self,
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.schedule = schedule

    def param_groups(self) -> list[dict[str, Any]]:
        """What is optimised: by default all that requires a gradient.

        Parameters that a module names in `no_weight_decay` form a group of their own without it. A group may have the
        key `lr_mult`: its learning rate is the optimiser's times that.
        """
        exempt = {
            id(getattr(module, name)) for module in self.modules() for name in getattr(module, "no_weight_decay", ())
        }
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": [p for p in trained if id(p) not in exempt]}]
        free = [p for p in trained if id(p) in exempt]
        return [*groups, {"params": free, "weight_decay": 0.0}] if free else groups

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule, as Lightning wants them."""
        optimizer, scheduler = self.make(self.param_groups())
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.schedule}}

    def make(self, groups: list[dict[str, Any]]) -> tuple[Optimizer, LRScheduler | None]:
        """The configured optimiser of some groups, which may have the key `lr_mult`, and its schedule."""
        factors = [group.pop("lr_mult", 1.0) for group in groups]
        optimizer = self.make_optimizer(groups)
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = group["lr"] * factor
        return optimizer, None if self.make_scheduler is None else self.make_scheduler(optimizer)

    def finite(self, loss: Tensor) -> Tensor:
        """The loss, or a `ValueError` that names the step where it is NaN or infinite."""
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {float(loss.detach())} at step {self.global_step}: "
                "a lower learning rate, gradient clipping, or inputs without NaN may help"
            )
        return loss
