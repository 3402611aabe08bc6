"""`saccade.metric.regularizers`."""

from saccade.metric.regularizers import *  # noqa: F403
