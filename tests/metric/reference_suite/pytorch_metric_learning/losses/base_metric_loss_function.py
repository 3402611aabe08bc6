"""The same names as the package's."""

from . import *  # noqa: F403
from . import (  # noqa: F401
    BaseLossWrapper,
    BaseMetricLossFunction,
    EmbeddingRegularizerMixin,
    GenericPairLoss,
    WeightRegularizerMixin,
)
