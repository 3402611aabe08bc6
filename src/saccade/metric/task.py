"""One Lightning task for metric learning: a network, a loss with or without parameters, recall on unseen classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from saccade.checkpoints import StateDict, load_strict, read_state
from saccade.metric.retrieval import recall_at_k
from saccade.training.task import OptimizerFactory, SchedulerFactory, Task, adamw


@dataclass
class Embeddings:
    """What the task predicts.

    Args:
        embeddings: One row a sample.
        labels: Their classes, as far as they are known.
    """

    embeddings: Float[Tensor, "b d"]
    labels: Int[Tensor, " b"] | None = None


class MetricLearning(Task):
    """Trains an embedding; validates by Recall@K.

    With several processes the embeddings of all of them are gathered before the loss, with their gradients, so that
    the loss is that of the joined batch: a loss that compares samples is not the mean of its parts.

    Args:
        model: Images to embeddings (b, d).
        loss: Embeddings and labels to a scalar. Its parameters, such as proxies, are trained along.
        ks: The values of K.
        loss_lr_mult: Factor of the learning rate of the loss's parameters (Proxy Anchor: 100).
        warmup_epochs: For so many epochs only the loss's parameters and those of the model's `head` are trained.
        gallery: Whether validation batches name their part, query or gallery, as In-shop's do.
        init_from: A file that `saccade convert` wrote, to start from; a head that it does not hold starts at random.
        optimizer: Makes the optimiser.
        lr_scheduler: Makes its schedule.
        schedule: Whether it steps once an epoch or once a step.
        miner: Chooses the pairs or triplets that the loss looks at; all of the batch where `None`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        ks: Sequence[int] = (1, 2, 4, 8),
        loss_lr_mult: float = 1.0,
        warmup_epochs: int = 0,
        gallery: bool = False,
        init_from: str | None = None,
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
        miner: nn.Module | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, schedule)
        if warmup_epochs and not isinstance(getattr(model, "head", None), nn.Module):
            raise ValueError(f"warmup_epochs trains the model's head alone, and {type(model).__name__} has no head")
        self.model = model
        self.loss = loss
        self.miner = miner
        self.ks = list(ks)
        self.loss_lr_mult = loss_lr_mult
        self.warmup_epochs = warmup_epochs
        self.gallery = gallery
        if init_from:
            _start_from(model, read_state(init_from))
        self._seen: list[tuple[Tensor, ...]] = []

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed images."""
        return self.model(images)

    def param_groups(self) -> list[dict[str, Any]]:
        """The network's parameters, and the loss's with their own learning rate."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained}]
        own = list(self.loss.parameters())
        return [*groups, {"params": own, "lr_mult": self.loss_lr_mult}] if own else groups

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss of the joined batch of all processes."""
        images, labels = batch
        embeddings = self.model(images)
        if self._processes > 1:
            # each process computes the whole loss: the gathering adds its gradients up, DDP takes their mean
            embeddings = torch.cat(all_gather(embeddings))
            joined: Any = self.all_gather(labels)
            labels = joined.flatten(0, 1)
        chosen = () if self.miner is None else (self.miner(embeddings, labels),)
        loss = self.finite(self.loss(embeddings, labels, *chosen))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """In the warm-up, the body is left as it is."""
        if self.current_epoch < self.warmup_epochs:
            head = {id(parameter) for parameter in self.model.head.parameters()}  # type: ignore[union-attr]
            for parameter in self.model.parameters():
                if id(parameter) not in head:
                    parameter.grad = None

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Collect embeddings."""
        images, *rest = batch
        self._seen.append((self.model(images).float(), *rest))

    def on_validation_epoch_end(self) -> None:
        """Recall@K over all that was collected, in all processes."""
        self._report("val")

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Collect embeddings."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Recall@K."""
        self._report("test")

    def predict_step(self, batch: Any, batch_idx: int) -> Embeddings:
        """Embeddings of a batch, (images, labels) or images alone."""
        images, labels = (batch[0], batch[1]) if isinstance(batch, (tuple, list)) else (batch, None)
        return Embeddings(self.model(images).float(), labels)

    @property
    def _processes(self) -> int:
        return self._trainer.world_size if self._trainer is not None else 1

    def _report(self, stage: str) -> None:
        seen = [torch.cat(column) for column in zip(*self._seen, strict=True)]
        self._seen.clear()
        if self._processes > 1:
            seen = [self._gather(column) for column in seen]
        embeddings, labels, *parts = seen
        if self.gallery:
            query = parts[0] == 0
            found = recall_at_k(embeddings[query], labels[query], self._ks(~query), embeddings[~query], labels[~query])
        else:
            found = recall_at_k(embeddings, labels, self._ks(torch.ones(len(labels) - 1)))
        for k, recall in found.items():
            self.log(f"{stage}/recall@{k}", recall, prog_bar=k == self.ks[0], rank_zero_only=self._processes == 1)

    def _ks(self, found: Tensor) -> list[int]:
        """Those K for which there is enough to find: a sanity check sees a few batches only."""
        available = int(found.sum())
        return [k for k in self.ks if k <= available]

    def _gather(self, column: Tensor) -> Tensor:
        """Join a column of all processes, which may have seen unequal numbers of samples."""
        sizes: Any = self.all_gather(torch.tensor(len(column), device=self.device))
        padded = column.new_zeros((int(sizes.max()), *column.shape[1:]))
        padded[: len(column)] = column
        gathered: Any = self.all_gather(padded)
        return torch.cat([gathered[rank, :size] for rank, size in enumerate(sizes.tolist())])


def _start_from(model: nn.Module, state: StateDict) -> None:
    """Load a state dict in which nothing but the head may be missing."""
    head = {key: value for key, value in model.state_dict().items() if key.startswith("head.")}
    load_strict(model, {**head, **state})
