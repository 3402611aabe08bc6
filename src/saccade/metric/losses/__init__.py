"""Metric-learning losses: one contract, so that any distance, reducer, miner and memory fits.

`loss(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None)` gives a scalar. Class names, arguments
and defaults are those of pytorch-metric-learning 2.9: to change over, change the import.
"""

from saccade.metric.losses.base import BaseMetricLossFunction, WeightedLoss
from saccade.metric.losses.classification import (
    ArcFaceLoss,
    CosFaceLoss,
    LargeMarginSoftmaxLoss,
    NormalizedSoftmaxLoss,
    P2SGradLoss,
    SphereFaceLoss,
    SubCenterArcFaceLoss,
)
from saccade.metric.losses.combined import MultipleLosses
from saccade.metric.losses.margins import (
    ContrastiveLoss,
    IntraPairVarianceLoss,
    SignalToNoiseRatioContrastiveLoss,
    ThresholdConsistentMarginLoss,
)
from saccade.metric.losses.memory import CrossBatchMemory
from saccade.metric.losses.pairs import (
    AngularLoss,
    LiftedStructureLoss,
    NPairsLoss,
    NTXentLoss,
    TupletMarginLoss,
)
from saccade.metric.losses.proxies import ManifoldLoss, ProxyNCALoss, SoftTripleLoss
from saccade.metric.losses.ranking import FastAPLoss, HistogramLoss, PNPLoss, SmoothAPLoss
from saccade.metric.losses.rows import (
    CircleLoss,
    GeneralizedLiftedStructureLoss,
    InstanceLoss,
    MultiSimilarityLoss,
    NCALoss,
    RankedListLoss,
    SupConLoss,
)
from saccade.metric.losses.triplets import DynamicSoftMarginLoss, MarginLoss, TripletMarginLoss
from saccade.metric.losses.views import SelfSupervisedLoss, VICRegLoss
from saccade.metric.proxy_anchor import ProxyAnchorLoss

__all__ = [
    "AngularLoss",
    "ArcFaceLoss",
    "BaseMetricLossFunction",
    "CircleLoss",
    "ContrastiveLoss",
    "CosFaceLoss",
    "CrossBatchMemory",
    "DynamicSoftMarginLoss",
    "FastAPLoss",
    "GeneralizedLiftedStructureLoss",
    "HistogramLoss",
    "InstanceLoss",
    "IntraPairVarianceLoss",
    "LargeMarginSoftmaxLoss",
    "LiftedStructureLoss",
    "ManifoldLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "MultipleLosses",
    "NCALoss",
    "NPairsLoss",
    "NTXentLoss",
    "NormalizedSoftmaxLoss",
    "P2SGradLoss",
    "PNPLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "RankedListLoss",
    "SelfSupervisedLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "SmoothAPLoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletMarginLoss",
    "TupletMarginLoss",
    "VICRegLoss",
    "WeightedLoss",
]
