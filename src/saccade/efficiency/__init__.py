"""Networks that are small and fast, and the search for them."""

from saccade.efficiency.acquisition import log_expected_improvement, rank
from saccade.efficiency.cells import Cell, edge_codes, one_hot
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
from saccade.efficiency.weaknas import WeakPredictorSearch, pool_schedule, rank_correlation, round_quality

__all__ = [
    "MLP",
    "BenchResult",
    "Cell",
    "ChoiceSpace",
    "DeviceManager",
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
    "StrongPredictorSearch",
    "TabularBenchmark",
    "WeakPredictorSearch",
    "benchmark",
    "compare",
    "compare_sharing",
    "edge_codes",
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
    "round_quality",
    "sample_efficiency",
]
