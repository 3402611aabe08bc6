"""The claims of the metric domain, one file a method."""

from saccade.metric.claims.log_ratio import LOG_RATIO
from saccade.metric.claims.proxy_anchor import PROXY_ANCHOR

__all__ = ["LOG_RATIO", "PROXY_ANCHOR"]
