"""`saccade.metric.trainers.keys`."""

from saccade.metric.trainers.keys import KeyChecker  # noqa: F401
