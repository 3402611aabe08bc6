"""`saccade.metric.samplers`."""

from saccade.metric.samplers import *  # noqa: F403
