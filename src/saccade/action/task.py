"""One task for every action network: classify clips, fuse the views of a video, count top-1 and top-5."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Accuracy, Metric, MetricCollection

from saccade.action.metrics import MeanClassAccuracy, TopK
from saccade.checkpoints import load_strict, read_state
from saccade.training.task import OptimizerFactory, SchedulerFactory, Task, adamw


@dataclass
class Classified:
    """What is predicted for the videos of a batch.

    Attributes:
        probabilities: Mean over the views of each video; with several labels a dict of them.
        index: Which record of the data set each is.
        skipped: Paths of clips that could not be read.
    """

    probabilities: Float[Tensor, "b k"] | dict[str, Float[Tensor, "b _"]]
    index: Int[Tensor, " b"]
    skipped: tuple[str, ...] = ()


class ActionClassification(Task):
    """Train, test and use a network that maps clips (b, c, t, h, w) to logits (b, k).

    A batch is a dict with `video`, (b, c, t, h, w) or with views (b, v, c, t, h, w), `label`, and optionally `index`
    and `skipped`. Probabilities are averaged over the views of a video.

    With several labels, such as verb and noun, `num_classes` is a dict, the network gives a dict of logits, and `label`
    is (b, labels) in the same order. The loss is the mean of the cross-entropies, and an action is right where all
    labels are.

    Args:
        backbone: The network, such as a [`VideoResNet`][saccade.nn.video_resnet.VideoResNet] with a block in its slot.
        num_classes: Classes, or a dict of several labels and their classes.
        pretrained: Weights to start from: a torchvision name such as `ResNet50_Weights.IMAGENET1K_V1`, or for a video
            transformer one of timm's such as `timm/vit_base_patch16_224.orig_in21k_ft_in1k`, which are downloaded if
            they are not there; or a file: a torchvision ResNet's state dict, a checkpoint of `saccade fit`, or what
            `saccade convert` wrote. A classifier of other classes is left out.
        label_smoothing: Share of the target spread over all classes.
        classifier_lr: Factors of the learning rate for weight and bias of the classifier `backbone.fc`.
        optimizer: Makes the optimiser.
        lr_scheduler: Makes its schedule.
        schedule: Whether that steps by epoch or by step.
        decay_norms: Whether biases and the weights of norms decay as the other weights do.

    Raises:
        ValueError: Fewer than two classes, or a label smoothing outside [0, 1).
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | dict[str, int],
        pretrained: str | None = None,
        label_smoothing: float = 0.0,
        classifier_lr: tuple[float, float] = (1.0, 1.0),
        optimizer: OptimizerFactory = adamw,
        lr_scheduler: SchedulerFactory | None = None,
        schedule: Literal["epoch", "step"] = "epoch",
        decay_norms: bool = True,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, schedule)
        if not num_classes or min(num_classes.values() if isinstance(num_classes, dict) else (num_classes,)) < 2:
            raise ValueError(f"num_classes has to be at least 2, not {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing has to be in [0, 1), not {label_smoothing}")
        self.backbone, self.num_classes, self.pretrained = backbone, num_classes, pretrained
        self.label_smoothing, self.classifier_lr, self.decay_norms = label_smoothing, classifier_lr, decay_norms
        metrics: dict[str, Metric]
        if isinstance(num_classes, dict):
            metrics = {name: TopK([place]) for place, name in enumerate(num_classes)}
            metrics |= {f"{name}_top5": TopK([place], 5) for place, name in enumerate(num_classes)}
            metrics["action"] = TopK(range(len(num_classes)))
        else:
            metrics = {
                f"top{k}": Accuracy(task="multiclass", num_classes=num_classes, top_k=k, average="micro")
                for k in sorted({1, min(5, num_classes)})
            }
            metrics["mean_class"] = MeanClassAccuracy(num_classes)
        self.val_metrics = MetricCollection(dict(metrics), prefix="val/")
        self.test_metrics = MetricCollection(dict(metrics), prefix="test/").clone()
        self.skipped: set[str] = set()

    def setup(self, stage: str) -> None:
        """Load the weights to start from, before training from scratch and not when resuming or testing."""
        if stage == "fit" and self.pretrained is not None and self.trainer.ckpt_path is None:
            start_from(self.backbone, self.pretrained)

    def param_groups(self) -> list[dict[str, Any]]:
        """The network, and apart from it what has a learning rate or a weight decay of its own."""
        groups = super().param_groups()
        if self.classifier_lr != (1.0, 1.0):
            classifier = self.backbone.get_submodule("fc")
            own = [classifier.get_parameter("weight"), classifier.get_parameter("bias")]
            taken = {id(parameter) for parameter in own}
            groups = [{**g, "params": [p for p in g["params"] if id(p) not in taken]} for g in groups]
            groups += [{"params": [p], "lr_mult": f} for p, f in zip(own, self.classifier_lr, strict=True)]
        if not self.decay_norms:
            decayed = [{**g, "params": [p for p in g["params"] if p.ndim > 1]} for g in groups]
            free = [{**g, "params": [p for p in g["params"] if p.ndim <= 1], "weight_decay": 0.0} for g in groups]
            groups = [group for group in (*decayed, *free) if group["params"]]
        return groups

    def forward(self, video: Tensor) -> Tensor | dict[str, Tensor]:
        """Probabilities (b, k), or a dict of them, of clips (b, c, t, h, w) or of videos (b, v, c, t, h, w)."""
        views = video.unsqueeze(1) if video.ndim == 5 else video
        logits = [self.backbone(view) for view in views.unbind(1)]
        if not isinstance(self.num_classes, dict):
            return torch.stack([view.float().softmax(1) for view in logits]).mean(0)
        return {name: torch.stack([v[name].float().softmax(1) for v in logits]).mean(0) for name in self.num_classes}

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy of single clips."""
        self._count(batch)
        video = batch["video"].flatten(0, 1) if batch["video"].ndim == 6 else batch["video"]
        label = batch["label"].repeat_interleave(video.shape[0] // len(batch["label"]), dim=0)
        self._check_labels(label)
        logits = self.backbone(video)
        pairs = zip(logits.values(), label.unbind(1), strict=True) if isinstance(logits, dict) else [(logits, label)]
        losses = [F.cross_entropy(x.float(), y, label_smoothing=self.label_smoothing) for x, y in pairs]
        loss = torch.stack(losses).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(label))
        return self.finite(loss)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Top-1 and top-5."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Top-1 and top-5 of the fused views."""
        self._evaluate(batch, self.test_metrics)

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int = 0) -> Classified:
        """Probabilities by video."""
        self._count(batch)
        skipped = tuple(batch.get("skipped", ()))
        count = len(batch["label"])
        if count == 0:
            nothing = torch.zeros(0, dtype=torch.int64)
            if isinstance(self.num_classes, dict):
                return Classified({n: torch.zeros(0, k) for n, k in self.num_classes.items()}, nothing, skipped)
            return Classified(torch.zeros(0, self.num_classes), nothing, skipped)
        return Classified(self(batch["video"]), batch.get("index", torch.arange(count)), skipped)

    def on_train_epoch_end(self) -> None:
        """Report clips that could not be read."""
        self._report()

    def on_validation_epoch_end(self) -> None:
        """Report clips that could not be read."""
        self._report()

    def on_test_epoch_end(self) -> None:
        """Report clips that could not be read."""
        self._report()

    def _evaluate(self, batch: Mapping[str, Any], metrics: MetricCollection) -> None:
        self._count(batch)
        if len(batch["label"]):
            self._check_labels(batch["label"])
            said = self(batch["video"])
            metrics.update(list(said.values()) if isinstance(said, dict) else said, batch["label"])
        self.log_dict(metrics, on_epoch=True, prog_bar=True, batch_size=max(len(batch["label"]), 1))

    def _check_labels(self, label: Tensor) -> None:
        if isinstance(self.num_classes, dict):
            if label.ndim != 2 or label.shape[1] != len(self.num_classes):
                raise ValueError(f"labels have to be (b, {len(self.num_classes)}), not {tuple(label.shape)}")
            parts = zip(label.unbind(1), self.num_classes.values(), strict=True)
        else:
            parts = zip([label], [self.num_classes], strict=True)
        for part, classes in parts:
            if int(part.min()) < 0 or int(part.max()) >= classes:
                raise ValueError(
                    f"labels go from {int(part.min())} to {int(part.max())}: 0 to {classes - 1} is accepted"
                )

    def _count(self, batch: Mapping[str, Any]) -> None:
        self.skipped.update(batch.get("skipped", ()))

    def _report(self) -> None:
        if self.skipped:
            first = ", ".join(sorted(self.skipped)[:3])
            message = f"{len(self.skipped)} clip(s) could not be read and were skipped, such as {first}"
            warnings.warn(message, stacklevel=2)
            self.skipped.clear()


def start_from(backbone: Any, weights: str) -> None:
    """Load weights into a backbone, without a classifier that has other classes.

    Args:
        backbone: Receives them: a network with the method `load_torchvision`, or `load_image_vit`, or for our own
            files any.
        weights: A torchvision name such as `ResNet50_Weights.IMAGENET1K_V1`, one of timm's after `timm/`, or a file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Weights of another network.
    """
    if "_Weights." in weights:
        from torchvision.models import get_weight

        backbone.load_torchvision(get_weight(weights).get_state_dict(progress=True, check_hash=True))
        return
    if weights.startswith("timm/"):
        import timm

        backbone.load_image_vit(timm.create_model(weights.removeprefix("timm/"), pretrained=True).state_dict())
        return
    state = backbone_state(read_state(weights))
    own = backbone.state_dict()
    if not any(key.startswith("slot.") for key in state) and hasattr(backbone, "load_torchvision"):
        backbone.load_torchvision(state)
        return
    classifier = ("fc.", "head.")
    ours = {key: value for key, value in own.items() if key.startswith(classifier)}
    theirs = {key: value.shape for key, value in state.items() if key.startswith(classifier)}
    if theirs != {key: value.shape for key, value in ours.items()}:
        state = {key: value for key, value in state.items() if key not in theirs} | ours
    load_strict(backbone, state)


def backbone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a task's state dict; a backbone's own as it is.

    Args:
        state: Either.

    Returns:
        Keys as the backbone has them.

    Example:
        >>> backbone_state({"backbone.fc.bias": torch.zeros(2), "val_metrics.x": torch.zeros(1)}).keys()
        dict_keys(['fc.bias'])
    """
    prefix = "backbone."
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside or dict(state)
