"""Deep metric learning: losses, heads, retrieval metrics, data sets and recipes."""

from saccade.metric.continuous_retrieval import mean_label_distance_at_k, ndcg_continuous
from saccade.metric.label_triplets import BinaryTripletLoss, DenseTripletLoss
from saccade.metric.log_ratio import LogRatioLoss, LogRatioModel
from saccade.metric.losses.proxies import ProxyNCALoss
from saccade.metric.neighbour_batches import binary_neighbour_batches, dense_neighbour_batches
from saccade.metric.proxy_anchor import EmbeddingHead, ProxyAnchorLoss, ProxyAnchorModel, proxy_anchor_param_groups
from saccade.metric.retrieval import map_at_r, recall_at_k

__all__ = [
    "BinaryTripletLoss",
    "DenseTripletLoss",
    "EmbeddingHead",
    "LogRatioLoss",
    "LogRatioModel",
    "ProxyAnchorLoss",
    "ProxyAnchorModel",
    "ProxyNCALoss",
    "binary_neighbour_batches",
    "dense_neighbour_batches",
    "map_at_r",
    "mean_label_distance_at_k",
    "ndcg_continuous",
    "proxy_anchor_param_groups",
    "recall_at_k",
]
