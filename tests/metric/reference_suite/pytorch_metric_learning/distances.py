"""`saccade.metric.distances`."""

from saccade.metric.distances import *  # noqa: F403
from saccade.metric.distances import BaseDistance  # noqa: F401
