"""`saccade fit` and its sisters: LightningCLI with recipes by name, a run folder, and resume by the same command."""

from __future__ import annotations

import logging
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from saccade.checkpoints import read_torch, write_state
from saccade.training.data import DataModule
from saccade.training.recipes import find_recipe
from saccade.training.resume import AtomicCheckpointIO, LastCheckpoint, StepSeeds
from saccade.training.task import Task

EMBEDDED = "saccade_config"
"""Under this key a checkpoint holds the configuration that made it, as YAML text."""


class EmbedConfig(Callback):
    """Writes the configuration into every checkpoint, so that a checkpoint alone can be loaded."""

    def __init__(self, text: str) -> None:
        self.text = text

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the text."""
        checkpoint[EMBEDDED] = self.text


class KeepPredictions(Callback):
    """Writes what `predict_step` gives, a dataclass of tensors a batch, as one safetensors file in the run folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.safetensors"
        self._columns: dict[str, list[Tensor]] = {}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keep the batch's tensors."""
        for field in fields(outputs):
            value = getattr(outputs, field.name)
            if isinstance(value, Tensor):
                self._columns.setdefault(field.name, []).append(value.cpu())

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them; with several processes each writes its own file."""
        path = self.path.with_stem(f"predictions-{trainer.global_rank}") if trainer.world_size > 1 else self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_state({name: torch.cat(parts) for name, parts in self._columns.items()}, path)
        rank_zero_info(f"predictions: {path}")


class RecipeCLI(LightningCLI):
    """LightningCLI with a run folder: `last.ckpt`, `config.yaml` and logs are in it, and the same command resumes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What is ours beside the task's, the data's and the trainer's arguments."""
        parser.add_argument("--folder", type=str | None, default=None, help="Run folder; runs/fit/RECIPE by default.")
        parser.add_argument("--fresh", type=bool, default=False, help="Start anew, whatever the folder holds.")
        parser.add_argument("--checkpoint_every", type=int, default=500, help="Steps between checkpoints in an epoch.")

    @property
    def settings(self) -> Any:
        """The configuration of the subcommand."""
        return self.config[str(self.subcommand)]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.settings.folder)

    def before_instantiate_classes(self) -> None:
        """Choose the run folder, and resume from its last checkpoint."""
        settings = self.settings
        settings.trainer.default_root_dir = settings.folder
        last = self.folder / "last.ckpt"
        if settings.fresh:
            last.unlink(missing_ok=True)
        if last.exists() and settings.ckpt_path is None:
            if self.subcommand == "fit":
                self._same_run(last)
            settings.ckpt_path = str(last)
        if settings.ckpt_path is not None:
            settings.weights_only = True

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with exact resume."""
        settings = self.settings
        seed = int(settings.seed_everything)
        extra = [
            StepSeeds(seed),
            EmbedConfig(self._text()),
            *([LastCheckpoint(self.folder, settings.checkpoint_every)] if self.subcommand == "fit" else []),
            *([KeepPredictions(self.folder)] if self.subcommand == "predict" else []),
        ]
        self.trainer_defaults = {**self.trainer_defaults, "plugins": [AtomicCheckpointIO()], "callbacks": extra}
        return super().instantiate_trainer(**kwargs)

    def _text(self) -> str:
        """The task's and the data's configuration as YAML."""
        dump = yaml.safe_load(self.parser.dump(self.config, skip_none=False))[str(self.subcommand)]
        return yaml.safe_dump({key: dump[key] for key in ("model", "data", "seed_everything")}, sort_keys=True)

    def _same_run(self, last: Path) -> None:
        """Another configuration must not go on from this checkpoint."""
        content = read_torch(last)
        stored = content.get(EMBEDDED) if isinstance(content, dict) else None
        if stored is not None and stored != self._text():
            old, new = yaml.safe_load(str(stored)), yaml.safe_load(self._text())
            changed = ", ".join(_differences(old, new)[:4])
            raise ValueError(
                f"{last.parent} holds a run with another configuration (differs in {changed}): "
                "give --fresh true to start anew, or another --folder"
            )


def run(subcommand: str, arguments: list[str]) -> RecipeCLI:
    """Run one subcommand.

    Args:
        subcommand: `fit`, `validate`, `test` or `predict`.
        arguments: As a person types them behind it; `--config NAME` may name a recipe.

    Returns:
        The command line's objects: task, data, trainer.

    Raises:
        FileNotFoundError: No such recipe, or data that are not there.
        ValueError: An option that is not known or does not fit; the message names it.
    """
    name, arguments = _resolve(arguments)
    defaults = {"folder": f"runs/fit/{name}"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        for noise in (
            "does not have many workers",
            "args parameter is intended",
            "LeafSpec",
            "logging interval",
            "Your `IterableDataset`",
        ):
            warnings.filterwarnings("ignore", message=f".*{noise}.*")
        for logger in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(logger).addFilter(lambda record: "litlogger" not in record.getMessage())
        try:
            return RecipeCLI(
                Task,
                DataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                save_config_callback=None,
                auto_configure_optimizers=False,
                parser_kwargs={
                    kind: {"exit_on_error": False, "default_env": False}
                    for kind in ("fit", "validate", "test", "predict")
                }
                | {"exit_on_error": False},
                trainer_defaults={
                    "logger": {
                        "class_path": "lightning.pytorch.loggers.CSVLogger",
                        "init_args": {"save_dir": defaults["folder"], "name": "logs"},
                    }
                },
                args=[subcommand, f"--folder={defaults['folder']}", *arguments],
            )
        except ArgumentError as error:
            raise ValueError(str(error)) from None


def load_task(path: str | Path) -> Task:
    """The task that a checkpoint of `saccade fit` holds, in eval mode.

    Args:
        path: The checkpoint; nothing but tensors and text is read from it.

    Returns:
        The task.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a checkpoint of `saccade fit`, or one whose weights do not fit its task.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    content = read_torch(path)
    if not isinstance(content, dict) or EMBEDDED not in content:
        raise ValueError(f"{path} is not a checkpoint of `saccade fit`: it does not say which task made it")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "model", instantiate=True)
    try:
        configured = parser.parse_object({"model": yaml.safe_load(content[EMBEDDED])["model"]})
    except (ArgumentError, KeyError) as error:
        raise ValueError(f"{path} was made by a task that cannot be built here: {error}") from None
    task: Task = parser.instantiate_classes(configured).model
    try:
        task.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its task: {' '.join(str(error).split())[:300]}") from None
    return task.eval()


def _resolve(arguments: list[str]) -> tuple[str, list[str]]:
    """Put files in the place of recipe names."""
    resolved, name = [], ""
    words = iter(arguments)
    for word in words:
        if word in ("--config", "-c") or word.startswith("--config="):
            value = word.partition("=")[2] or next(words, "")
            if not value:
                raise ValueError("--config needs a recipe: its name, domain/recipe, or a YAML file")
            found, path = find_recipe(value)
            name = name or found
            resolved += ["--config", str(path)]
        else:
            resolved.append(word)
    if not name and "--help" not in arguments:
        raise ValueError("which recipe? give --config DOMAIN/NAME or a YAML file; `saccade show SLUG` names a method's")
    return name or "none", resolved


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [found for key in keys for found in _differences(old.get(key), new.get(key), f"{at}.{key}".strip("."))]
    return [] if old == new else [at]
