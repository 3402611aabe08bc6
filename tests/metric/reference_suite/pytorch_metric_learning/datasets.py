"""`saccade.metric.retrieval_sets`."""

from saccade.metric.retrieval_sets import (  # noqa: F401
    CUB,
    BaseDataset,
    Cars196,
    INaturalist2018,
    StanfordOnlineProducts,
)
