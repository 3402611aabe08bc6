"""The loop that all trainers share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset

from saccade.metric.hierarchy import LabelMapper, Level, labels_of_level
from saccade.metric.inputs import ArgumentError
from saccade.metric.neighbours import default_device
from saccade.metric.progress import with_progress
from saccade.metric.trainers.keys import KeyChecker
from saccade.metric.trainers.tracker import LossTracker

LOGGER = logging.getLogger("saccade")


class BaseTrainer:
    """Trains a trunk and an embedder; a subclass says in `calculate_loss` with what.

    A step: losses and gradients to zero, `update_loss_weights`, `calculate_loss`, the weighted sum, backward, clipping,
    optimisers.

    Args:
        models: "trunk" (from an input to features) and "embedder" (from features to embeddings).
        optimizers: "trunk_optimizer", "embedder_optimizer", "metric_loss_optimizer" and so on.
        batch_size: Of the loader.
        loss_funcs: "metric_loss".
        dataset: Of (input, label).
        mining_funcs: "tuple_miner" (pairs or triplets for the loss), "subset_batch_miner" (indices of a part of the
            batch to train on).
        iterations_per_epoch: Steps; one pass over the data set where `None`.
        data_device: Where inputs go; CUDA where there is one and it is `None`.
        dtype: Of the inputs, where they are to be cast.
        loss_weights: Of each loss; 1 where `None`.
        sampler: Of the loader; a `BatchSampler` makes the batches itself. Random order where `None`.
        collate_fn: Of the loader.
        lr_schedulers: Such as "trunk_scheduler_by_iteration", "..._by_epoch", "..._by_plateau".
        gradient_clippers: Such as "trunk_grad_clipper": called without arguments before the optimisers.
        freeze_these: Names of models and losses that are not trained.
        freeze_trunk_batchnorm: Whether the trunk's batch normalisation stays as in evaluation.
        label_hierarchy_level: Which columns of labels are trained on.
        dataloader_num_workers: Processes that load.
        data_and_label_getter: From what the loader gives to (input, label).
        dataset_labels: Labels of the data set, for `set_min_label_to_zero`.
        set_min_label_to_zero: Whether labels are replaced by their ranks.
        end_of_iteration_hook: Called with the trainer.
        end_of_epoch_hook: The same; training stops where it returns `False`.

    Raises:
        ValueError: A key that is not accepted, or one that is missing.
    """

    SUFFIXES = ("_scheduler_by_iteration", "_scheduler_by_epoch", "_scheduler_by_plateau")

    def __init__(
        self,
        models: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        batch_size: int,
        loss_funcs: dict[str, Any],
        dataset: Dataset[Any],
        mining_funcs: dict[str, Any] | None = None,
        iterations_per_epoch: int | None = None,
        data_device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        loss_weights: dict[str, float] | None = None,
        sampler: Any = None,
        collate_fn: Callable[[Any], Any] | None = None,
        lr_schedulers: dict[str, Any] | None = None,
        gradient_clippers: dict[str, Callable[[], Any]] | None = None,
        freeze_these: Sequence[str] = (),
        freeze_trunk_batchnorm: bool = False,
        label_hierarchy_level: Level = 0,
        dataloader_num_workers: int = 2,
        data_and_label_getter: Callable[[Any], Any] | None = None,
        dataset_labels: Any = None,
        set_min_label_to_zero: bool = False,
        end_of_iteration_hook: Callable[[Any], Any] | None = None,
        end_of_epoch_hook: Callable[[Any], Any] | None = None,
    ) -> None:
        self.models = models
        self.optimizers = optimizers
        self.batch_size = batch_size
        self.loss_funcs = loss_funcs
        self.dataset = dataset
        self.mining_funcs = {} if mining_funcs is None else mining_funcs
        self.iterations_per_epoch = iterations_per_epoch
        self.data_device = default_device(data_device)
        self.dtype = dtype
        self.sampler = sampler
        self.collate_fn = collate_fn
        self.lr_schedulers = lr_schedulers
        self.gradient_clippers = gradient_clippers
        self.freeze_these = freeze_these
        self.freeze_trunk_batchnorm = freeze_trunk_batchnorm
        self.label_hierarchy_level = label_hierarchy_level
        self.dataloader_num_workers = dataloader_num_workers
        self.data_and_label_getter = data_and_label_getter or (lambda batch: batch)
        self.dataset_labels = dataset_labels
        self.set_min_label_to_zero = set_min_label_to_zero
        self.end_of_iteration_hook = end_of_iteration_hook or (lambda _: None)
        self.end_of_epoch_hook = end_of_epoch_hook or (lambda _: None)
        self.loss_names = list(loss_funcs)
        self.epoch, self.iteration = 1, 0
        self.custom_setup()
        self.loss_weights: dict[str, float] = (
            dict.fromkeys(self.loss_names, 1) if loss_weights is None else loss_weights
        )
        self.verify_dict_keys()
        self.models.setdefault("embedder", nn.Identity())
        self.label_mapper = LabelMapper(set_min_label_to_zero, dataset_labels)
        self.loss_tracker = LossTracker(self.loss_names)
        self.losses = self.loss_tracker.losses
        self.lr_schedulers = {} if self.lr_schedulers is None else self.lr_schedulers

    # What a subclass may say

    def custom_setup(self) -> None:
        """Called before keys are checked: to add losses or miners of its own."""

    def modify_schema(self) -> None:
        """Change `self.schema`, the checks of keys."""

    def calculate_loss(self, curr_batch: Any) -> None:
        """Put the losses of a batch into `self.losses`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its losses are computed")

    def update_loss_weights(self) -> None:
        """Change `self.loss_weights`; called at the start of each step."""

    # The loop

    def train(self, start_epoch: int = 1, num_epochs: int = 1) -> None:
        """Train.

        Args:
            start_epoch: The first epoch's number.
            num_epochs: The last epoch's number.
        """
        self.initialize_dataloader()
        for self.epoch in range(start_epoch, num_epochs + 1):
            self.set_to_train()
            steps = with_progress(
                range(self.iterations_per_epoch or 0),
                self.iterations_per_epoch,
                lambda: f"epoch {self.epoch}, loss {float(self.losses['total_loss']):.5f}",
            )
            for self.iteration in steps:
                self.forward_and_backward()
                self.end_of_iteration_hook(self)
                self.step_lr_schedulers(end_of_epoch=False)
            self.step_lr_schedulers(end_of_epoch=True)
            self.zero_losses()
            if self.end_of_epoch_hook(self) is False:
                break

    def initialize_dataloader(self) -> None:
        """Make the loader, and count its steps where they were not given."""
        common: dict[str, Any] = {"num_workers": self.dataloader_num_workers, "collate_fn": self.collate_fn}
        if isinstance(self.sampler, BatchSampler):
            self.dataloader: DataLoader[Any] = DataLoader(self.dataset, batch_sampler=self.sampler, **common)
        else:
            self.dataloader = DataLoader(
                self.dataset,
                batch_size=int(self.batch_size),
                sampler=self.sampler,
                shuffle=self.sampler is None,
                drop_last=True,
                **common,
            )
        if not self.iterations_per_epoch:
            self.iterations_per_epoch = len(self.dataloader)
        if len(self.dataloader) == 0:
            raise ValueError(f"the data set is smaller than a batch of {self.batch_size}: there is nothing to train on")
        self.dataloader_iter = iter(self.dataloader)

    def forward_and_backward(self) -> None:
        """One step."""
        self.zero_losses()
        self.zero_grad()
        self.update_loss_weights()
        self.calculate_loss(self.get_batch())
        self.loss_tracker.update(self.loss_weights)
        self.backward()
        self.clip_gradients()
        self.step_optimizers()

    def next_of_loader(self) -> Any:
        """What the loader gives next; it starts again at its end."""
        try:
            return next(self.dataloader_iter)
        except StopIteration:
            self.dataloader_iter = iter(self.dataloader)
            return next(self.dataloader_iter)

    def get_batch(self) -> tuple[Any, Tensor]:
        """Inputs and labels of the next step."""
        data, labels = self.data_and_label_getter(self.next_of_loader())
        return self.maybe_do_batch_mining(data, self.processed_labels(labels))

    def processed_labels(self, labels: Any) -> Tensor:
        """Labels at the level that is trained on, mapped."""
        return labels_of_level(labels, self.label_hierarchy_level, self.label_mapper)

    def compute_embeddings(self, data: Any) -> Tensor:
        """From inputs to embeddings."""
        return self.get_final_embeddings(self.get_trunk_output(data))

    def get_trunk_output(self, data: Any) -> Tensor:
        """From inputs to features."""
        return self.models["trunk"](data.to(self.data_device, self.dtype))

    def get_final_embeddings(self, base_output: Tensor) -> Tensor:
        """From features to embeddings."""
        return self.models["embedder"](base_output)

    def maybe_mine_embeddings(self, embeddings: Any, labels: Tensor) -> Any:
        """What the "tuple_miner" finds; `None` without one."""
        return self.mining_funcs["tuple_miner"](embeddings, labels) if "tuple_miner" in self.mining_funcs else None

    def maybe_do_batch_mining(self, data: Any, labels: Tensor) -> tuple[Any, Tensor]:
        """The part of the batch that the "subset_batch_miner" chooses; all of it without one."""
        if "subset_batch_miner" in self.mining_funcs:
            with torch.no_grad():
                self.set_to_eval()
                chosen = self.mining_funcs["subset_batch_miner"](self.compute_embeddings(data), labels)
                self.set_to_train()
            data, labels = data[chosen], labels[chosen]
        return data, labels

    def zero_losses(self) -> None:
        """Set all losses to 0."""
        for name in self.losses:
            self.losses[name] = 0

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for model in self.models.values():
            model.zero_grad()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def backward(self) -> None:
        """Gradients of the total."""
        self.losses["total_loss"].backward()

    def clip_gradients(self) -> None:
        """Call the clippers."""
        for clip in (self.gradient_clippers or {}).values():
            clip()

    def step_optimizers(self) -> None:
        """Step the optimisers of what is not frozen."""
        for name, optimizer in self.optimizers.items():
            if name.removesuffix("_optimizer") not in self.freeze_these:
                optimizer.step()

    def step_lr_schedulers(self, end_of_epoch: bool = False) -> None:
        """Step the schedulers by iteration, or those by epoch."""
        for name, scheduler in (self.lr_schedulers or {}).items():
            if name.endswith(self.SUFFIXES[end_of_epoch]):
                scheduler.step()

    def step_lr_plateau_schedulers(self, validation_info: Any) -> None:
        """Step the schedulers by plateau."""
        for name, scheduler in (self.lr_schedulers or {}).items():
            if name.endswith(self.SUFFIXES[2]):
                scheduler.step(validation_info)

    def get_global_iteration(self) -> int:
        """The number of the step since the first epoch's start."""
        return self.iteration + (self.iterations_per_epoch or 0) * (self.epoch - 1)

    # Modes

    def trainable_attributes(self) -> list[Mapping[str, Any]]:
        """Dictionaries of what has modes and parameters."""
        return [self.models, self.loss_funcs]

    def set_to_train(self) -> None:
        """Training mode, but for what is frozen."""
        for group in self.trainable_attributes():
            for name, module in group.items():
                if name in self.freeze_these:
                    module.requires_grad_(False)
                    module.eval()
                else:
                    module.train()
        if self.freeze_trunk_batchnorm:
            for module in self.models["trunk"].modules():
                if "BatchNorm" in type(module).__name__:
                    module.eval()

    def set_to_eval(self) -> None:
        """Evaluation mode."""
        for group in self.trainable_attributes():
            for module in group.values():
                module.eval()

    # Checks

    def verify_dict_keys(self) -> None:
        """Raise unless all dictionaries have the keys that they may and must have."""
        self.set_schema()
        for name, checker in self.schema.items():
            checker.verify(name, getattr(self, name, None), self.schema)
        allowed = self._trained(self.schema)
        for name in self.freeze_these:
            if name not in allowed:
                raise ArgumentError(f"freeze_these names {name!r}; {', '.join(allowed)} are accepted")
            if f"{name}_optimizer" in self.optimizers:
                LOGGER.warning("%s has an optimizer, but is frozen", name)

    def set_schema(self) -> None:
        """Make `self.schema`, then let `modify_schema` change it."""
        trained = self._trained
        self.schema = {
            "models": KeyChecker(["trunk", "embedder"], essential=["trunk"]),
            "loss_funcs": KeyChecker(["metric_loss"]),
            "mining_funcs": KeyChecker(["subset_batch_miner", "tuple_miner"], warn_empty=False, important=[]),
            "loss_weights": KeyChecker(self.loss_names, warn_empty=False, essential=self.loss_names),
            "optimizers": KeyChecker(
                lambda schema: [f"{name}_optimizer" for name in trained(schema)],
                important=[f"{name}_optimizer" for name in self.models],
            ),
            "lr_schedulers": KeyChecker(
                lambda schema: [name + suffix for suffix in self.SUFFIXES for name in trained(schema)],
                warn_empty=False,
                important=[],
            ),
            "gradient_clippers": KeyChecker(
                lambda schema: [f"{name}_grad_clipper" for name in trained(schema)], warn_empty=False, important=[]
            ),
        }
        self.modify_schema()

    @staticmethod
    def _trained(schema: Mapping[str, KeyChecker]) -> list[str]:
        return [*schema["models"].keys, *schema["loss_funcs"].keys]
