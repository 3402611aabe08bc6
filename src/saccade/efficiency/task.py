"""One task: train a classifier so that it survives clustering, and keep the state that does so best."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Accuracy

from saccade.checkpoints import StateDict, load_strict, read_state
from saccade.data.loading import make_loader
from saccade.efficiency.compressed_file import save_compressed
from saccade.efficiency.deep_k_means import KMeansRegularizer, Relaxation
from saccade.efficiency.rows import Unit
from saccade.efficiency.shared_weights import ClusteredModel, cluster_weights, share_equal_rows
from saccade.surgery import find_layers, recalibrate_bn
from saccade.training.task import OptimizerFactory, SchedulerFactory, Task, adamw


@dataclass
class Classified:
    """What is predicted for a batch.

    Attributes:
        probabilities: By the clustered network that was kept; without clusters, by the network that was kept.
    """

    probabilities: Float[Tensor, "b k"]


class ClusteredClassification(Task):
    """Cross-entropy, and the k-means regulariser; each validation clusters a copy, and the best of these is kept.

    The loop of Deep k-Means: every `update_every` epochs the assignment is refreshed, in every step the rows are pulled
    to their centroids, and after each epoch a copy is clustered, its batch norms are estimated anew on training images,
    and its validation accuracy decides whether it is kept. Without `clusters` it is plain training, which makes the
    network to start from.

    Args:
        model: Images (b, c, h, w) to logits (b, k).
        num_classes: k.
        clusters: K of every convolution, or by name; `None`: plain training.
        core_ratio: Share of the rows in the dense core, for every layer or by name.
        lam: Strength of the regulariser.
        ramp: Raise the strength linearly from 0 over the run, so that the rows end on their centroids.
        relaxation: `hard` or `spectral`.
        unit: What a sample of the regulariser is: `row` or `filter`. Clustering shares rows in any case.
        layers: Names of the convolutions, where `clusters` is one number.
        update_every: Epochs between updates of the assignment.
        bn_batches: Batches of training images, at most, for the batch norms of a clustered copy; 0: they stay.
        init_from: Weights to start from: a checkpoint of this task, what `saccade convert` wrote, or any state dict of
            the model.
        compressed: Name of the compressed file, written into the run folder at the end; `None`: none.
        optimizer: Makes the optimiser.
        lr_scheduler: Makes its schedule.
        schedule: Whether that steps by epoch or by step.

    Raises:
        ValueError: Fewer than two classes, no epochs between updates, a negative number of batches.
    """

    best_accuracy: Tensor

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        clusters: int | dict[str, int] | None = None,
        core_ratio: float | dict[str, float] = 0.0,
        lam: float = 0.5,
        ramp: bool = False,
        relaxation: Relaxation = "hard",
        unit: Unit = "row",
        layers: list[str] | None = None,
        update_every: int = 1,
        bn_batches: int = 100,
        init_from: str | None = None,
        compressed: str | None = None,
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(optimizer, lr_scheduler, schedule)
        if num_classes < 2 or update_every < 1 or bn_batches < 0:
            raise ValueError(
                f"num_classes has to be at least 2, update_every at least 1 and bn_batches not negative, "
                f"not {num_classes}, {update_every} and {bn_batches}"
            )
        self.model = model
        self.kept = copy.deepcopy(model).requires_grad_(False)
        self.num_classes, self.clusters, self.core_ratio = num_classes, clusters, core_ratio
        self.lam, self.ramp, self.relaxation, self.unit, self.layers = lam, ramp, relaxation, unit, layers
        self.update_every, self.bn_batches = update_every, bn_batches
        self.init_from, self.compressed = init_from, compressed
        self.register_buffer("best_accuracy", torch.tensor(-1.0))
        self.accuracies = nn.ModuleDict(
            {
                f"{stage}_{what}": Accuracy(task="multiclass", num_classes=num_classes)
                for stage in ("val", "test")
                for what in ("accuracy", "clustered_accuracy", "unadjusted")
            }
        )
        self.regularizer: KMeansRegularizer | None = None
        self.errors: list[tuple[float, float]] = []
        self._updated = -1
        self._resumed: dict[str, Any] | None = None
        self._copies: list[nn.Module] = []  # in a list: no part of the state dict

    def setup(self, stage: str) -> None:
        """Load the weights to start from; not when a run is resumed."""
        if stage == "fit" and self.init_from is not None and self.trainer.ckpt_path is None:
            load_strict(self.model, network_state(read_state(self.init_from)))

    def on_fit_start(self) -> None:
        """Build the regulariser from the weights as they are now, or go on with that of a resumed run."""
        self.model.train()  # a network that was tested before comes in eval mode, and batch norms would stand still
        if self.clusters is None:
            return
        self.regularizer = KMeansRegularizer(
            self.model, self.clusters, self.lam, self.relaxation, self.unit, self.layers, core_ratio=self.core_ratio
        )
        self._updated = self.current_epoch
        if self._resumed is not None:
            self.regularizer.load_state_dict(self._resumed["state"])
            self._updated, self._resumed = self._resumed["updated"], None

    def on_train_epoch_start(self) -> None:
        """Refresh the assignment."""
        due = self.current_epoch % self.update_every == 0 and self.current_epoch != self._updated
        if self.regularizer is not None and due:
            self.regularizer.update()
            self._updated = self.current_epoch

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of the state that was kept."""
        return self.kept(images)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy plus the regulariser."""
        images, labels = batch
        self._check(labels)
        loss = F.cross_entropy(self.model(images).float(), labels)
        self.log("train/cross_entropy", loss.detach())
        if self.regularizer is not None:
            share = self.global_step / max(float(self.trainer.estimated_stepping_batches), 1.0) if self.ramp else 1.0
            self.regularizer.lam = self.lam * share
            loss = loss + self.regularizer.loss()
        self.log("train/loss", loss.detach(), prog_bar=True)
        return self.finite(loss)

    def on_train_epoch_end(self) -> None:
        """Keep how far the rows are from their centroids."""
        if self.regularizer is not None:
            errors = self.regularizer.relative_errors()
            mean = sum(errors.values()) / len(errors)
            self.errors.append((float(self.current_epoch + 1), mean))
            self.log("train/relative_error", mean, rank_zero_only=True)

    def on_validation_epoch_start(self) -> None:
        """Cluster a copy of the network as it is now."""
        self._copies = []
        if self.clusters is not None and not self.trainer.sanity_checking:
            clustered = self.cluster()
            used = sum(len(module.indices.unique()) for module in clustered.shared().values())
            error = [layer.relative_error for layer in clustered.layers.values()]
            self.log("val/used_clusters", float(used), rank_zero_only=True)
            self.log("val/relative_error", sum(error) / len(error), rank_zero_only=True)
            self._copies = self._with_and_without_statistics(clustered.materialize())

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Accuracies of the network, and of its clustered copy with and without re-estimated batch norms."""
        self._measure("val", [self.model, *self._copies], batch)

    def on_validation_epoch_end(self) -> None:
        """Log them; keep the clustered copy where it is the best so far."""
        found = self._report("val", 1 + len(self._copies))
        if not self.trainer.sanity_checking and self.trainer.state.fn == "fit" and found[-1] > self.best_accuracy:
            self.best_accuracy.copy_(torch.as_tensor(found[-1]))
            self.kept.load_state_dict((self._copies or [self.model])[-1 if self._copies else 0].state_dict())
        self._copies = []

    def on_test_epoch_start(self) -> None:
        """What was kept in training; where nothing was, a clustered copy of the network."""
        self._copies = []
        if self.clusters is not None:
            untrained = float(self.best_accuracy) < 0
            self._copies = self._with_and_without_statistics(self.cluster().materialize()) if untrained else [self.kept]

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Accuracies of the network and of the clustered one."""
        self._measure("test", [self.model, *self._copies], batch)

    def on_test_epoch_end(self) -> None:
        """Log them."""
        self._report("test", 1 + len(self._copies))
        self._copies = []

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Classified:
        """Probabilities of a batch, (images, labels) or images alone."""
        images = batch[0] if isinstance(batch, tuple | list) else batch
        network = self.kept if float(self.best_accuracy) >= 0 else self.model
        return Classified(network(images).float().softmax(1))

    def on_train_end(self) -> None:
        """Write the compressed file."""
        if self.compressed and self.clusters is not None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            clustered = self.best()
            if self.trainer.is_global_zero:
                folder = Path(self.trainer.default_root_dir)
                folder.mkdir(parents=True, exist_ok=True)
                save_compressed(clustered, folder / self.compressed)

    def cluster(self) -> ClusteredModel:
        """A clustered copy of the network as it is now; in training it starts from the regulariser's centroids."""
        if self.clusters is None:
            raise ValueError("the task has no clusters: it is plain training")
        known = self.regularizer.centroids if self.regularizer is not None and self.unit == "row" else {}
        clusters = self.clusters if isinstance(self.clusters, dict) or self.layers is None else None
        if clusters is None:
            clusters = dict.fromkeys(self.layers or [], self.clusters)  # type: ignore[arg-type]
        return cluster_weights(self.model, clusters, self.core_ratio, init=known)

    def best(self) -> ClusteredModel:
        """The clustered network that was kept; where validation never ran, one of the network as it is now."""
        if float(self.best_accuracy) < 0:
            clustered = self.cluster()
            self._estimate_statistics(clustered.network)
            return clustered
        return share_equal_rows(self.kept, {name: layer.clusters for name, layer in self.cluster().layers.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Assignment and centroids belong to the run's state."""
        if self.regularizer is not None:
            checkpoint["regularizer"] = {"state": self.regularizer.state_dict(), "updated": self._updated}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again when the run starts."""
        self._resumed = checkpoint.get("regularizer")

    def _measure(self, stage: str, networks: Sequence[nn.Module], batch: Sequence[Tensor]) -> None:
        images, labels = batch
        self._check(labels)
        for network, metric in zip(networks, self._metrics(stage, len(networks)), strict=True):
            metric.update(network(images).float(), labels)

    def _metrics(self, stage: str, count: int) -> list[Any]:
        names = [["accuracy"], ["accuracy", "clustered_accuracy"], ["accuracy", "unadjusted", "clustered_accuracy"]]
        return [self.accuracies[f"{stage}_{name}"] for name in names[count - 1]]

    def _report(self, stage: str, count: int) -> list[float]:
        """Log what was measured; the last is the accuracy of what would be deployed."""
        titles = {"unadjusted": "clustered_accuracy_without_bn"}
        found = []
        for metric in self._metrics(stage, count):
            name = next(key for key, value in self.accuracies.items() if value is metric).removeprefix(f"{stage}_")
            found.append(float(metric.compute()))
            metric.reset()
            self.log(f"{stage}/{titles.get(name, name)}", found[-1], prog_bar=True)
        return found

    def _check(self, labels: Tensor) -> None:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"labels go from {int(labels.min())} to {int(labels.max())}: 0 to {self.num_classes - 1} is accepted"
            )

    def _with_and_without_statistics(self, network: nn.Module) -> list[nn.Module]:
        """The network in eval mode, and with re-estimated batch norms where it has any."""
        network = network.requires_grad_(False).eval()
        adjusted = copy.deepcopy(network)
        return [network, adjusted] if self._estimate_statistics(adjusted) else [network]

    def _estimate_statistics(self, network: nn.Module) -> bool:
        """Estimate batch norms anew, on training images; whether there was anything to do."""
        norms = find_layers(network, nn.modules.batchnorm._BatchNorm)
        data: Any = getattr(self.trainer, "datamodule", None) if self._trainer is not None else None
        if not norms or not self.bn_batches or not hasattr(data, "train_set"):
            return False
        recalibrate_bn(network, self._training_images(data))
        if self.trainer.world_size > 1:
            for norm in norms.values():
                for name in ("running_mean", "running_var"):
                    gathered: Any = self.all_gather(getattr(norm, name))
                    getattr(norm, name).copy_(gathered.mean(0))
        return True

    def _training_images(self, data: Any) -> Iterator[Tensor]:
        dataset = data.calibration_set() if hasattr(data, "calibration_set") else data.train_set()
        loader = make_loader(dataset, data.batch_size, train=True, collate=data.collate)
        for batch, _ in zip(
            loader, range(min(self.bn_batches, math.ceil(len(dataset) / data.batch_size))), strict=False
        ):
            yield batch[0].to(self.device)


def network_state(state: StateDict) -> StateDict:
    """The network of a checkpoint of this task: what was kept, or where nothing was, as it was last; else as it is.

    Args:
        state: Of the task, or of a network.

    Returns:
        Keys as the network has them.

    Example:
        >>> network_state({"best_accuracy": torch.tensor(0.9), "kept.a": torch.ones(1), "model.a": torch.zeros(1)})
        {'a': tensor([1.])}
    """
    if "best_accuracy" not in state:
        return state
    prefix = "kept." if float(state["best_accuracy"]) >= 0 else "model."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
