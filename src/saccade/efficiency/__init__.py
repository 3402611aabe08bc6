"""Networks that are small and fast: weights that share few values, and the search for architectures.

Compression takes any network: torchvision's, timm's, your own. Convolutions of every kind are found and replaced by
surgery; the network that is given is never changed.
"""

from saccade.efficiency.acquisition import log_expected_improvement, rank
from saccade.efficiency.cells import Cell, edge_codes, one_hot
from saccade.efficiency.compressed_file import CompressedFile, load_compressed, read_compressed, save_compressed
from saccade.efficiency.compression import CompressionReport, LayerSize, compression_report
from saccade.efficiency.deep_k_means import KMeansRegularizer
from saccade.efficiency.energy import EnergyReport, EnergyTable, energy_report, layer_cost
from saccade.efficiency.lenet import LeNetCaffe
from saccade.efficiency.migperf import (
    BenchResult,
    DeviceManager,
    PartitionController,
    PrometheusExporter,
    Sampler,
    benchmark,
    compare,
    compare_sharing,
    maximal_layouts,
    plan_layout,
    poisson_arrivals,
)
from saccade.efficiency.nas_tables import load_ec_nasbench, load_nasbench201_json, load_nasbench_macro, load_table
from saccade.efficiency.predictors import MLP, Ridge, predictor
from saccade.efficiency.rows import cluster_rows, rows_of
from saccade.efficiency.search import (
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    Search,
    SearchResult,
    StrongPredictorSearch,
    sample_efficiency,
)
from saccade.efficiency.search_space import ChoiceSpace, SearchSpace, TabularBenchmark
from saccade.efficiency.shared_weights import (
    ClusteredModel,
    LayerClusters,
    SharedConv1d,
    SharedConv2d,
    SharedConv3d,
    SharedConvTranspose1d,
    SharedConvTranspose2d,
    SharedConvTranspose3d,
    SharedRows,
    cluster_weights,
    share,
    share_equal_rows,
)
from saccade.efficiency.weaknas import WeakPredictorSearch, pool_schedule, rank_correlation, round_quality
from saccade.efficiency.wide_resnet import WideResNet, wide_resnet_setting
from saccade.ops.clustering import KMeans, assign, kmeans

__all__ = [
    "MLP",
    "BenchResult",
    "Cell",
    "ChoiceSpace",
    "ClusteredModel",
    "CompressedFile",
    "CompressionReport",
    "DeviceManager",
    "EnergyReport",
    "EnergyTable",
    "KMeans",
    "KMeansRegularizer",
    "LayerClusters",
    "LayerSize",
    "LeNetCaffe",
    "LocalSearch",
    "PartitionController",
    "PrometheusExporter",
    "RandomSearch",
    "RegularizedEvolution",
    "Ridge",
    "Sampler",
    "Search",
    "SearchResult",
    "SearchSpace",
    "SharedConv1d",
    "SharedConv2d",
    "SharedConv3d",
    "SharedConvTranspose1d",
    "SharedConvTranspose2d",
    "SharedConvTranspose3d",
    "SharedRows",
    "StrongPredictorSearch",
    "TabularBenchmark",
    "WeakPredictorSearch",
    "WideResNet",
    "assign",
    "benchmark",
    "cluster_rows",
    "cluster_weights",
    "compare",
    "compare_sharing",
    "compression_report",
    "edge_codes",
    "energy_report",
    "kmeans",
    "layer_cost",
    "load_compressed",
    "load_ec_nasbench",
    "load_nasbench201_json",
    "load_nasbench_macro",
    "load_table",
    "log_expected_improvement",
    "maximal_layouts",
    "one_hot",
    "plan_layout",
    "poisson_arrivals",
    "pool_schedule",
    "predictor",
    "rank",
    "rank_correlation",
    "read_compressed",
    "round_quality",
    "rows_of",
    "sample_efficiency",
    "save_compressed",
    "share",
    "share_equal_rows",
    "wide_resnet_setting",
]
