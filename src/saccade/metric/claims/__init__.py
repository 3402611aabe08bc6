"""The claims of the metric domain, one file a method."""

from saccade.metric.claims.log_ratio import LOG_RATIO
from saccade.metric.claims.metric_learning import METRIC_LEARNING
from saccade.metric.claims.proxy_anchor import PROXY_ANCHOR

__all__ = ["LOG_RATIO", "METRIC_LEARNING", "PROXY_ANCHOR"]
