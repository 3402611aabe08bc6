"""Lightning tasks: densities by maximum likelihood, and hyperbolic autoencoders."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from saccade.flows.manifold_ode import ManifoldCNF
from saccade.flows.vae import HyperbolicVAE
from saccade.training.task import OptimizerFactory, SchedulerFactory, Task, adamw


class DensityEstimation(Task):
    """Trains a flow by maximum likelihood; figures are negative log-likelihoods in nats.

    Args:
        model: The flow.
        optimizer: Makes the optimiser.
        lr_scheduler: Makes its schedule.
        schedule: Whether it steps once an epoch or once a step.
    """

    def __init__(
        self,
        model: ManifoldCNF,
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "step",
    ) -> None:
        super().__init__(optimizer, lr_scheduler, schedule)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Log-densities."""
        return self.model.log_prob(x)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Mean over the batch."""
        loss = self.finite(-self(batch).mean())
        self.log("train/nll", loss, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Mean over the set."""
        self.log("val/nll", -self(batch).mean(), prog_bar=True, batch_size=len(batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Mean over the set."""
        self.log("test/nll", -self(batch).mean(), batch_size=len(batch))


class Autoencoding(Task):
    """Trains a hyperbolic autoencoder on the lower bound of the likelihood.

    Args:
        model: The autoencoder.
        samples: Codes of each sample for the likelihood of test samples.
        optimizer: Makes the optimiser.
        lr_scheduler: Makes its schedule.
        schedule: Whether it steps once an epoch or once a step.
    """

    def __init__(
        self,
        model: HyperbolicVAE,
        samples: int = 500,
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(optimizer, lr_scheduler, schedule)
        self.model, self.samples = model, samples

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The negative bound."""
        loss = self.finite(-self.model.elbo(batch).mean())
        self.log("train/loss", loss, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """The bound."""
        self.log("val/elbo", self.model.elbo(batch).mean(), prog_bar=True, batch_size=len(batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Bound and likelihood."""
        self.log("test/elbo", self.model.elbo(batch).mean(), batch_size=len(batch))
        with torch.no_grad():
            self.log(
                "test/log_likelihood", self.model.log_likelihood(batch, self.samples).mean(), batch_size=len(batch)
            )
