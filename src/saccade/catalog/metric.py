"""The methods of the domain `metric`."""

from __future__ import annotations

from saccade.catalog.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="log-ratio",
        name="Log-ratio loss",
        title="Deep Metric Learning Beyond Binary Supervision",
        arxiv="1904.09626",
        domain="metric",
        summary=(
            "Learns embeddings whose distances follow continuous labels, such as poses or captions, instead of "
            "same or different."
        ),
        repository="tjddus9597/Beyond-Binary-Supervision-CVPR19",
        licence="MIT",
        parts=(
            "saccade.metric.log_ratio:LogRatioLoss",
            "saccade.metric.log_ratio:LogRatioModel",
            "saccade.metric.label_triplets:DenseTripletLoss",
            "saccade.metric.label_triplets:BinaryTripletLoss",
            "saccade.metric.neighbour_batches:dense_neighbour_batches",
            "saccade.metric.neighbour_batches:binary_neighbour_batches",
            "saccade.metric.continuous_retrieval:ndcg_continuous",
            "saccade.metric.continuous_retrieval:mean_label_distance_at_k",
        ),
        claim="saccade.metric.claims:LOG_RATIO",
        recipes=(
            "metric/log-ratio-pose",
            "metric/log-ratio-pose-dense-triplet",
            "metric/log-ratio-distances",
            "metric/log-ratio-stick-figures",
        ),
        converter="saccade.metric.checkpoints:convert_log_ratio",
        checkpoints="none; the authors' code writes them when it trains, and a plain torchvision ResNet converts too",
    ),
    Method(
        slug="metric-learning",
        name="Metric learning toolkit",
        title="PyTorch Metric Learning",
        arxiv="2008.09164",
        domain="metric",
        summary="Losses, miners, distances and samplers for embedding spaces, as pieces that combine freely.",
        repository="KevinMusgrave/pytorch-metric-learning",
        licence="MIT",
        parts=(
            "saccade.metric.losses:TripletMarginLoss",
            "saccade.metric.losses:MultiSimilarityLoss",
            "saccade.metric.losses:NTXentLoss",
            "saccade.metric.losses:ArcFaceLoss",
            "saccade.metric.losses:CrossBatchMemory",
            "saccade.metric.miners:MultiSimilarityMiner",
            "saccade.metric.distances:CosineSimilarity",
            "saccade.metric.reducers:AvgNonZeroReducer",
            "saccade.metric.samplers:MPerClassSampler",
            "saccade.metric.accuracy:AccuracyCalculator",
            "saccade.metric.trainers:MetricLossOnly",
            "saccade.metric.testers:GlobalEmbeddingSpaceTester",
        ),
        claim="saccade.metric.claims:METRIC_LEARNING",
        recipes=(
            "metric/metric-learning-cub",
            "metric/metric-learning-cars",
            "metric/metric-learning-sop",
            "metric/metric-learning-inshop",
            "metric/metric-learning-sop-memory",
            "metric/metric-learning-digits",
        ),
    ),
    Method(
        slug="proxy-anchor",
        name="Proxy Anchor",
        title="Proxy Anchor Loss for Deep Metric Learning",
        arxiv="2003.13911",
        domain="metric",
        summary=(
            "Learns embeddings for image retrieval with one learned proxy for each class: quick to converge, no "
            "sampling of pairs."
        ),
        repository="tjddus9597/Proxy-Anchor-CVPR2020",
        licence="MIT",
        parts=(
            "saccade.metric.proxy_anchor:ProxyAnchorLoss",
            "saccade.metric.proxy_anchor:ProxyAnchorModel",
            "saccade.metric.proxy_anchor:EmbeddingHead",
            "saccade.metric.proxy_anchor:proxy_anchor_param_groups",
            "saccade.metric.retrieval:recall_at_k",
        ),
        claim="saccade.metric.claims:PROXY_ANCHOR",
        recipes=(
            "metric/proxy-anchor-cub",
            "metric/proxy-anchor-cars",
            "metric/proxy-anchor-sop",
            "metric/proxy-anchor-inshop",
            "metric/proxy-anchor-cub-resnet50",
            "metric/proxy-anchor-cars-resnet50",
            "metric/proxy-anchor-digits",
        ),
        converter="saccade.metric.checkpoints:convert_proxy_anchor",
        checkpoints="Inception-BN and ResNet-50 embeddings for CUB-200-2011, Cars-196, SOP and In-shop, as .pth files",
    ),
)
