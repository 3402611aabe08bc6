"""`saccade.metric.miners`."""

from saccade.metric.miners import *  # noqa: F403
