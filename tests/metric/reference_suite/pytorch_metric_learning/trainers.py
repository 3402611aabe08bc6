"""`saccade.metric.trainers`."""

from saccade.metric.trainers import *  # noqa: F403
