"""The Lightning task for continuous labels: batches are anchors with their neighbours, validation is nDCG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from saccade.metric.continuous_retrieval import mean_label_distance_at_k, ndcg_continuous
from saccade.metric.neighbour_data import NeighbourData
from saccade.metric.task import MetricLearning
from saccade.training.task import OptimizerFactory, SchedulerFactory, adamw


class ContinuousRetrieval(MetricLearning):
    """Trains an embedding on continuous labels; validates by the label distance of what is found, and by nDCG.

    The data module has to be a [`NeighbourData`][saccade.metric.neighbour_data.NeighbourData]: it makes the batches,
    and says how far labels are apart. A loss looks at one anchor and its neighbours, so with several processes each has
    its own anchors, and gradients are averaged as usual. Validation compares what the model gives: with a loss that
    normalises, let the model normalise too (`LogRatioModel(normalize=True)`).

    Args:
        model: Images to embeddings (b, d).
        loss: Embeddings with the anchor first, and label distances, to a scalar.
        ks: Numbers of neighbours whose mean label distance is reported.
        ndcg_ks: The values of K in nDCG.
        distance_scale: Factor of the mean label distances in the report.
        init_from: A file that `saccade convert` wrote, to start from; a head that it does not hold starts at random.
        optimizer: Makes the optimiser.
        lr_scheduler: Makes its schedule.
        schedule: Whether it steps once an epoch or once a step.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        ks: Sequence[int] = (1, 5, 10),
        ndcg_ks: Sequence[int] = (10, 50, 100),
        distance_scale: float = 1.0,
        init_from: str | None = None,
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(
            model, loss, ks=ks, init_from=init_from, optimizer=optimizer, lr_scheduler=lr_scheduler, schedule=schedule
        )
        self.ndcg_ks = list(ndcg_ks)
        self.distance_scale = distance_scale

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """The mean of the losses of the anchors; a batch is a list of groups, (images, label distances)."""
        embeddings = self.model(torch.cat([images for images, _ in batch]))
        parts = embeddings.split([len(images) for images, _ in batch])
        losses = [self.loss(part, distances) for part, (_, distances) in zip(parts, batch, strict=True)]
        loss = self.finite(torch.stack(losses).mean())
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def _report(self, stage: str) -> None:
        seen = [torch.cat(column) for column in zip(*self._seen, strict=True)]
        self._seen.clear()
        if self._processes > 1:
            seen = [self._gather(column) for column in seen]
        embeddings, places = seen
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, NeighbourData):
            raise TypeError(f"{type(data).__name__} does not say how far labels are apart: a NeighbourData is accepted")
        is_query = places < data.num_queries
        distances = data.query_distances()[places[is_query].cpu()][:, places[~is_query].cpu() - data.num_queries]
        for name, measure, ks, factor in (
            ("distance", mean_label_distance_at_k, self.ks, self.distance_scale),
            ("ndcg", ndcg_continuous, self.ndcg_ks, 1.0),
        ):
            possible = [k for k in ks if k <= distances.shape[1]]
            if not possible or not len(distances):
                continue  # a sanity check sees a few batches only
            found = measure(embeddings[is_query].cpu(), embeddings[~is_query].cpu(), distances, possible)
            for k, value in found.items():
                bar = name == "ndcg" and k == possible[-1]
                self.log(f"{stage}/{name}@{k}", factor * value, prog_bar=bar, rank_zero_only=self._processes == 1)


class InverseTime(LambdaLR):
    """The authors' schedule: the learning rate at step t is the first one divided by 1 + decay · t.

    Args:
        optimizer: Whose rates are set.
        decay: At least 0.

    Example:
        >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
        >>> schedule = InverseTime(optimizer, decay=1.0)
        >>> optimizer.step()
        >>> schedule.step()
        >>> schedule.get_last_lr()
        [0.005]
    """

    def __init__(self, optimizer: Optimizer, decay: float = 1e-4) -> None:
        if decay < 0:
            raise ValueError(f"decay is {decay}; 0 or above is accepted")
        super().__init__(optimizer, lambda step: 1 / (1 + decay * step))
