"""`saccade.metric.reducers`."""

from saccade.metric.reducers import *  # noqa: F403
