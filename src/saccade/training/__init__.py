"""What every Lightning task shares: base task and data module, exact resume, `fit` for claims, the recipe runner."""

from saccade.training.data import DataModule
from saccade.training.fit import fit
from saccade.training.task import Task

__all__ = ["DataModule", "Task", "fit"]
