"""Hooks for trainers and testers: records of losses and accuracies, the latest and the best models, early stopping."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade.metric.neighbours import default_device
from saccade.metric.recording import RecordKeeper

LOGGER = logging.getLogger("saccade")


class HookContainer:
    """Hooks that share a record keeper.

    Args:
        record_keeper: From `get_record_keeper`, or the package's own.
        record_group_name_prefix: Before the names of tables.
        primary_metric: By which models are compared.
        validation_split_name: On which they are compared.
        save_models: Whether `NAME_EPOCH.pth` of the latest and `NAME_bestEPOCH.pth` of the best are kept.
        log_freq: Losses are recorded at every so many steps.
    """

    saveable_trainer_objects = ("models", "optimizers", "lr_schedulers", "loss_funcs", "mining_funcs")

    def __init__(
        self,
        record_keeper: Any,
        record_group_name_prefix: str | None = None,
        primary_metric: str = "mean_average_precision_at_r",
        validation_split_name: str = "val",
        save_models: bool = True,
        log_freq: int = 50,
    ) -> None:
        self.record_keeper = record_keeper
        self.record_group_name_prefix = record_group_name_prefix
        self.primary_metric = primary_metric
        self.validation_split_name = validation_split_name
        self.do_save_models = save_models
        self.log_freq = log_freq

    # Hooks

    def end_of_iteration_hook(self, trainer: Any) -> None:
        """Record losses, weights, learning rates, and what losses, miners and models note of themselves."""
        if trainer.iteration % self.log_freq:
            return
        step, record = trainer.get_global_iteration(), self.record_keeper.update_records
        record(trainer.loss_tracker.losses, step, parent_name="loss_histories")
        record(trainer.loss_tracker.loss_weights, step, parent_name="loss_weights")
        record(trainer.loss_funcs, step, recursive_types=[nn.Module, dict])
        record(trainer.mining_funcs, step)
        record(trainer.models, step)
        record(trainer.optimizers, step, custom_attr_func=lambda optimizer: {"lr": optimizer.param_groups[0]["lr"]})

    def end_of_epoch_hook(
        self,
        tester: Any,
        dataset_dict: Mapping[str, Any],
        model_folder: str | Path,
        test_interval: int = 1,
        patience: int | None = None,
        splits_to_eval: Any = None,
        test_collate_fn: Callable[[Any], Any] | None = None,
    ) -> Callable[[Any], bool]:
        """Make the hook that tests and saves.

        Args:
            tester: With which; its `end_of_testing_hook` is to be this container's.
            dataset_dict: Split to data set.
            model_folder: Where models go; it is made.
            test_interval: In epochs.
            patience: Training stops after more than so many epochs without a better model; never where `None`.
            splits_to_eval: As for `tester.test`.
            test_collate_fn: As for `tester.test`.

        Returns:
            A hook that gives `False` where training should stop.

        Raises:
            ValueError: The tester does not measure the primary metric.
        """
        measured = tester.accuracy_calculator.get_curr_metrics()
        if self.primary_metric not in measured:
            raise ValueError(f"primary_metric is {self.primary_metric!r}; the tester measures {', '.join(measured)}")
        Path(model_folder).mkdir(parents=True, exist_ok=True)

        def hook(trainer: Any) -> bool:
            if trainer.epoch % test_interval:
                return True
            best = self.save_models_and_eval(
                trainer, dataset_dict, model_folder, test_interval, tester, splits_to_eval, test_collate_fn
            )
            return self.patience_remaining(trainer.epoch, best, patience)

        return hook

    def end_of_testing_hook(self, tester: Any) -> None:
        """Record the accuracies, and the best ones so far."""
        for split, accuracies in tester.all_accuracies.items():
            epoch, table = accuracies["epoch"], self.record_group_name(tester, split)
            _, _, best_epoch, best = self.is_new_best_accuracy(tester, split, epoch)
            self.record_keeper.update_records(accuracies, epoch, parent_name=table)
            self.record_keeper.update_records(
                {"best_epoch": best_epoch, "best_accuracy": best}, epoch, parent_name=table
            )

    def run_tester_separately(
        self,
        tester: Any,
        dataset_dict: Mapping[str, Any],
        epoch: int,
        trunk: nn.Module,
        embedder: nn.Module | None,
        splits_to_eval: Any = None,
        collate_fn: Callable[[Any], Any] | None = None,
        skip_eval_if_already_done: bool = True,
    ) -> bool:
        """Test outside of a training.

        Args:
            tester: With which.
            dataset_dict: Split to data set.
            epoch: Noted with the figures.
            trunk: As for `tester.test`.
            embedder: As for `tester.test`.
            splits_to_eval: As for `tester.test`.
            collate_fn: As for `tester.test`.
            skip_eval_if_already_done: Leave out the splits of which the epoch's accuracies are recorded.

        Returns:
            Whether there was something to do.
        """
        if skip_eval_if_already_done:
            splits_to_eval = self.get_splits_to_eval(tester, dataset_dict, epoch, splits_to_eval)
            if not splits_to_eval:
                LOGGER.info("Already evaluated")
                return False
        tester.test(dataset_dict, epoch, trunk, embedder, splits_to_eval, collate_fn)
        return True

    def get_splits_to_eval(
        self, tester: Any, dataset_dict: Mapping[str, Any], epoch: int, input_splits_to_eval: Any
    ) -> list[tuple[str, list[str]]]:
        """Those of the splits of which the epoch's accuracies are not yet recorded."""
        asked = [(split, [split]) for split in dataset_dict] if input_splits_to_eval is None else input_splits_to_eval
        left = []
        for query, references in asked:
            tester.reference_split_names[query] = list(references)
            if not self.get_accuracies_of_epoch(tester, query, epoch):
                left.append((query, list(references)))
        return left

    # Models

    def save_models_and_eval(
        self,
        trainer: Any,
        dataset_dict: Mapping[str, Any],
        model_folder: str | Path,
        test_interval: int,
        tester: Any,
        splits_to_eval: Any = None,
        collate_fn: Callable[[Any], Any] | None = None,
    ) -> int | None:
        """Test, record, save the latest models and, where they are the best, save them as such.

        Returns:
            The best epoch.
        """
        epoch, split = trainer.epoch, self.validation_split_name
        previous_best, _ = self._best(tester, split)
        tester.test(
            dataset_dict, epoch, trainer.models["trunk"], trainer.models["embedder"], splits_to_eval, collate_fn
        )
        new, accuracy, best_epoch, _ = self.is_new_best_accuracy(tester, split, epoch)
        self.record_keeper.save_records()
        trainer.step_lr_plateau_schedulers(accuracy)
        self.save_models(trainer, model_folder, epoch, epoch - test_interval)
        if new:
            LOGGER.info("New best accuracy: %s", accuracy)
            self.save_models(
                trainer, model_folder, f"best{epoch}", None if previous_best is None else f"best{previous_best}"
            )
        return best_epoch

    def save_models(
        self, trainer: Any, model_folder: str | Path, curr_suffix: str | int, prev_suffix: str | int | None = None
    ) -> None:
        """Write `NAME_SUFFIX.pth` of all that has a state, and remove those of the previous suffix."""
        if not self.do_save_models:
            return
        for name, held in self._stateful(trainer):
            module = held.module if isinstance(held, nn.DataParallel | nn.parallel.DistributedDataParallel) else held
            torch.save(module.state_dict(), Path(model_folder) / f"{name}_{curr_suffix}.pth")
            if prev_suffix is not None and prev_suffix != curr_suffix:
                (Path(model_folder) / f"{name}_{prev_suffix}.pth").unlink(missing_ok=True)

    def load_latest_saved_models(
        self, trainer: Any, model_folder: str | Path, device: torch.device | str | None = None, best: bool = False
    ) -> int:
        """Load what `save_models` wrote.

        Args:
            trainer: Into which.
            model_folder: From where.
            device: Where to.
            best: The best instead of the latest.

        Returns:
            The epoch to go on with; 1 where nothing was saved.
        """
        pattern = re.compile(rf"trunk_{'best' if best else ''}(\d+)\.pth")
        found = [match for path in Path(model_folder).glob("trunk_*.pth") if (match := pattern.fullmatch(path.name))]
        epoch = max((int(match[1]) for match in found), default=0)
        if epoch:
            for name, held in self._stateful(trainer):
                file = Path(model_folder) / f"{name}_{'best' if best else ''}{epoch}.pth"
                if not file.exists():
                    LOGGER.warning("%s is not there: %s stays as it is", file, name)
                    continue
                state = torch.load(file, map_location=default_device(device), weights_only=True)
                wrapped = isinstance(held, nn.DataParallel | nn.parallel.DistributedDataParallel)
                (held.module if wrapped else held).load_state_dict(state)
        return epoch + 1

    def _stateful(self, trainer: Any) -> list[tuple[str, Any]]:
        groups = [getattr(trainer, group, None) or {} for group in self.saveable_trainer_objects]
        return [(name, held) for group in groups for name, held in group.items() if hasattr(held, "state_dict")]

    # Histories

    def get_loss_history(self, loss_names: Sequence[str] = ()) -> dict[str, list[Any]]:
        """Recorded losses: name to values."""
        return self._columns("loss_histories", loss_names)

    def get_accuracy_history(
        self, tester: Any, split_name: str, return_all_metrics: bool = False, metrics: Sequence[str] = ()
    ) -> dict[str, list[Any]]:
        """Recorded accuracies of a split, "epoch" and names to values: the primary metric unless others are named."""
        history = self._columns(self.record_group_name(tester, split_name))
        if return_all_metrics or not history:
            return history
        names = [self._key(tester, history, metric) for metric in (metrics or [self.primary_metric])]
        return {name: history[name] for name in ("epoch", *names)}

    def get_accuracies_of_epoch(self, tester: Any, split_name: str, epoch: int, select_all: bool = True) -> list[Any]:
        """Recorded rows of one epoch."""
        rows = [row for row in self._rows(self.record_group_name(tester, split_name)) if row["epoch"] == epoch]
        return rows if select_all else [self._primary(tester, row) for row in rows]

    def get_accuracies_of_best_epoch(
        self, tester: Any, split_name: str, select_all: bool = True, ignore_epoch: Sequence[int] = (-1,)
    ) -> tuple[list[Any], str | None]:
        """Recorded rows of the epochs with the largest primary metric, and what it is called there."""
        rows = [
            row
            for row in self._rows(self.record_group_name(tester, split_name))
            if row["epoch"] is not None and row["epoch"] not in ignore_epoch
        ]
        if not rows:
            return [], None
        key = self._key(tester, rows[0], self.primary_metric)
        largest = max(row[key] for row in rows)
        best = [row for row in rows if row[key] == largest]
        return (best if select_all else [self._primary(tester, row) for row in best]), key

    def get_best_epoch_and_accuracy(
        self, tester: Any, split_name: str, ignore_epoch: Sequence[int] = (-1,)
    ) -> tuple[int | None, float]:
        """The recorded epoch with the largest primary metric; `None` and 0 without records."""
        rows, key = self.get_accuracies_of_best_epoch(tester, split_name, ignore_epoch=ignore_epoch)
        return (rows[0]["epoch"], rows[0][key]) if rows else (None, 0.0)

    def _best(self, tester: Any, split_name: str) -> tuple[int | None, float]:
        """The same before the tester has run for the first time."""
        if split_name not in tester.reference_split_names:
            return None, 0.0
        return self.get_best_epoch_and_accuracy(tester, split_name)

    def get_curr_primary_metric(self, tester: Any, split_name: str) -> float:
        """The primary metric of the last test."""
        accuracies = tester.all_accuracies[split_name]
        return accuracies[self._key(tester, accuracies, self.primary_metric)]

    def is_new_best_accuracy(self, tester: Any, split_name: str, epoch: int) -> tuple[bool, float, int | None, float]:
        """Whether the last test's accuracy is the largest so far, itself, and the best epoch with its accuracy."""
        current = self.get_curr_primary_metric(tester, split_name)
        best_epoch, best = self.get_best_epoch_and_accuracy(tester, split_name)
        if best_epoch is None or current > best:
            return True, current, epoch, current
        return False, current, best_epoch, best

    def patience_remaining(self, epoch: int, best_epoch: int | None, patience: int | None) -> bool:
        """Whether training should go on."""
        if patience is None or best_epoch is None or epoch - best_epoch <= patience:
            return True
        LOGGER.info("No better model for %d epochs: training stops", epoch - best_epoch)
        return False

    def record_group_name(self, tester: Any, split_name: str) -> str:
        """The table of a split's accuracies."""
        references = "_and_".join(name.upper() for name in sorted(tester.reference_split_names[split_name]))
        own = split_name.upper()
        against = "self" if references == own else references
        name = f"{self.base_record_group_name(tester)}_{own}_vs_{against}"
        return next((short for short, full in self.record_keeper.hash_map.items() if full == name), name)

    def base_record_group_name(self, tester: Any) -> str:
        """What the tables of a tester begin with."""
        prefix = f"{self.record_group_name_prefix}_" if self.record_group_name_prefix else ""
        return prefix + tester.description_suffixes("accuracies")

    def _key(self, tester: Any, row: Any, metric: str) -> str:
        """What a metric is called in a row: its average over levels where there is one."""
        level = tester.label_hierarchy_level
        names = [
            tester.accuracies_keyname(metric, average=average, label_hierarchy_level=level) for average in (True, False)
        ]
        columns = row.keys()
        for name in names:
            if name in columns:
                return name
        raise KeyError(f"neither {' nor '.join(names)} is recorded; {', '.join(columns)} are")

    def _primary(self, tester: Any, row: Any) -> dict[str, Any]:
        key = self._key(tester, row, self.primary_metric)
        return {"epoch": row["epoch"], key: row[key]}

    def _rows(self, table: str) -> list[dict[str, Any]]:
        if not self.record_keeper.table_exists(table):
            return []
        return [{name: row[name] for name in row.keys()} for row in self.record_keeper.query(f"SELECT * FROM {table}")]  # noqa: SIM118

    def _columns(self, table: str, names: Sequence[str] = ()) -> dict[str, list[Any]]:
        rows = self._rows(table)
        columns = names or [name for name in (rows[0] if rows else ()) if name != "id"]
        return {name: [row[name] for row in rows] for name in columns} if rows else {}


class EmptyContainer:
    """Hooks that do nothing."""

    end_of_iteration_hook = None
    end_of_testing_hook = None

    def end_of_epoch_hook(self, *args: Any) -> None:
        """Nothing."""


def get_record_keeper(
    csv_folder: str | Path,
    tensorboard_folder: str | Path | None = None,
    global_db_path: str | Path | None = None,
    experiment_name: str | None = None,
    is_new_experiment: bool = True,
    save_lists: bool = False,
) -> tuple[Any, Any, Any]:
    """A record keeper: of the package record-keeper where it is installed, else our own.

    Args:
        csv_folder: Where records go.
        tensorboard_folder: Where tensorboard's files go, where that is installed.
        global_db_path: For the package: a file that experiments share.
        experiment_name: For the package.
        is_new_experiment: For the package.
        save_lists: For the package.

    Returns:
        The keeper, its writer of files, and tensorboard's writer or `None`.
    """
    writer = None
    if tensorboard_folder is not None:
        try:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(log_dir=str(tensorboard_folder))
        except ImportError:
            LOGGER.warning("tensorboard is not installed (extra `tensorboard`): records go to files alone")
    try:
        import record_keeper as package
    except ImportError:
        if global_db_path is not None or experiment_name is not None or save_lists:
            LOGGER.warning(
                "global_db_path, experiment_name and save_lists need the package record-keeper; they are left out"
            )
        keeper = RecordKeeper(csv_folder, writer)
        return keeper, keeper, writer
    files = package.RecordWriter(
        folder=str(csv_folder),
        global_db_path=global_db_path,
        experiment_name=experiment_name,
        is_new_experiment=is_new_experiment,
        save_lists=save_lists,
    )
    names = ["_record_these", "_record_these_stats"]
    theirs = package.RecordKeeper(tensorboard_writer=writer, record_writer=files, attributes_to_search_for=names)
    return theirs, files, writer


def get_hook_container(record_keeper: Any, **kwargs: Any) -> HookContainer | EmptyContainer:
    """A [`HookContainer`][saccade.metric.hooks.HookContainer]; hooks that do nothing without a record keeper."""
    if record_keeper:
        return HookContainer(record_keeper, **kwargs)
    LOGGER.warning("no record keeper came: the hooks do nothing")
    return EmptyContainer()
