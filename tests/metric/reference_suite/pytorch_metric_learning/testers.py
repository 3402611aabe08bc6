"""`saccade.metric.testers`."""

from saccade.metric.testers import *  # noqa: F403
