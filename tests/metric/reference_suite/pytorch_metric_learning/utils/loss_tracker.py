"""`saccade.metric.trainers.tracker`."""

from saccade.metric.trainers.tracker import LossTracker  # noqa: F401
