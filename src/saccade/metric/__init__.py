"""Deep metric learning: losses, heads, retrieval metrics, data sets and recipes."""

from saccade.metric.losses.proxies import ProxyNCALoss
from saccade.metric.proxy_anchor import EmbeddingHead, ProxyAnchorLoss, ProxyAnchorModel, proxy_anchor_param_groups
from saccade.metric.retrieval import map_at_r, recall_at_k

__all__ = [
    "EmbeddingHead",
    "ProxyAnchorLoss",
    "ProxyAnchorModel",
    "ProxyNCALoss",
    "map_at_r",
    "proxy_anchor_param_groups",
    "recall_at_k",
]
