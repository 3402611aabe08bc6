"""`saccade.metric.accuracy`."""

from saccade.metric.accuracy import *  # noqa: F403
