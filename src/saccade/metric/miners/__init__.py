"""Miners: which pairs or triplets of a batch a loss should look at."""

from saccade.metric.miners.base import BaseMiner
from saccade.metric.miners.batch import (
    BatchEasyHardMiner,
    BatchHardMiner,
    EmbeddingsAlreadyPackagedAsTriplets,
    HDCMiner,
)
from saccade.metric.miners.margins import AngularMiner, MultiSimilarityMiner, PairMarginMiner, TripletMarginMiner
from saccade.metric.miners.sampling import DistanceWeightedMiner, UniformHistogramMiner

__all__ = [
    "AngularMiner",
    "BaseMiner",
    "BatchEasyHardMiner",
    "BatchHardMiner",
    "DistanceWeightedMiner",
    "EmbeddingsAlreadyPackagedAsTriplets",
    "HDCMiner",
    "MultiSimilarityMiner",
    "PairMarginMiner",
    "TripletMarginMiner",
    "UniformHistogramMiner",
]
