"""The methods of the domain `efficiency`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="deep-k-means",
        name="Deep k-Means",
        title=(
            "Deep k-Means: Re-Training and Parameter Sharing with Harder Cluster Assignments for Compressing Deep "
            "Convolutions"
        ),
        arxiv="1806.09228",
        domain="efficiency",
        summary=(
            "Compresses a trained network: rows of its filters are pulled into few clusters during re-training, "
            "then stored as indices."
        ),
        repository="Sandbox3aster/Deep-K-Means",
        licence=NO_LICENCE,
        parts=(
            "saccade.efficiency:KMeansRegularizer",
            "saccade.efficiency:cluster_weights",
            "saccade.efficiency:SharedConv2d",
            "saccade.efficiency:compression_report",
            "saccade.efficiency:energy_report",
            "saccade.efficiency:save_compressed",
            "saccade.efficiency:load_compressed",
            "saccade.efficiency:kmeans",
            "saccade.efficiency:WideResNet",
        ),
        claim="saccade.efficiency.claims.deep_k_means:DEEP_K_MEANS",
        recipes=(
            "efficiency/deep-k-means-wrn-cifar10-45",
            "efficiency/deep-k-means-wrn-cifar10-47",
            "efficiency/deep-k-means-wrn-cifar10-50",
            "efficiency/deep-k-means-lenet-mnist",
            "efficiency/deep-k-means-googlenet-imagenet",
            "efficiency/deep-k-means-digits",
            "efficiency/wide-resnet-cifar10",
            "efficiency/lenet-mnist",
        ),
        converter="saccade.efficiency.checkpoints:convert",
        checkpoints="Wide ResNet 16-4 for CIFAR-10, pre-trained and re-trained for ratios 45, 47 and 50, as .pth.tar",
    ),
    Method(
        slug="migperf",
        name="MIGPerf",
        title=(
            "MIGPerf: A Comprehensive Benchmark for Deep Learning Training and Inference Workloads on "
            "Multi-Instance GPUs"
        ),
        arxiv="2301.00407",
        domain="efficiency",
        summary=(
            "Measures latency, throughput, memory and energy of a model on slices of a GPU, or on whatever "
            "machine is at hand."
        ),
        repository="MLSysOps/MIGProfiler",
        licence="MIT",
        parts=(
            "saccade.efficiency:benchmark",
            "saccade.efficiency:compare",
            "saccade.efficiency:compare_sharing",
            "saccade.efficiency:plan_layout",
            "saccade.efficiency:maximal_layouts",
            "saccade.efficiency:poisson_arrivals",
            "saccade.efficiency:DeviceManager",
            "saccade.efficiency:PartitionController",
            "saccade.efficiency:Sampler",
            "saccade.efficiency:PrometheusExporter",
        ),
        claim="saccade.efficiency.claims.migperf:MIGPERF",
        recipes=(
            "efficiency/migperf-infer-a100",
            "efficiency/migperf-train-a100",
            "efficiency/migperf-text-a100",
            "efficiency/migperf-share-a30",
        ),
        checkpoints="none: it measures",
    ),
    Method(
        slug="weaknas",
        name="WeakNAS",
        title="Stronger NAS with Weaker Predictors",
        arxiv="2102.10490",
        domain="efficiency",
        summary=(
            "Finds good architectures with few evaluations, by a sequence of weak predictors that zoom in on the best."
        ),
        repository="VITA-Group/WeakNAS",
        licence="a research licence of its own",
        parts=(
            "saccade.efficiency:WeakPredictorSearch",
            "saccade.efficiency:TabularBenchmark",
            "saccade.efficiency:ChoiceSpace",
            "saccade.efficiency:rank",
            "saccade.efficiency:pool_schedule",
            "saccade.efficiency:RegularizedEvolution",
            "saccade.efficiency:LocalSearch",
            "saccade.efficiency:StrongPredictorSearch",
        ),
        claim="saccade.efficiency.claims.weaknas:WEAKNAS",
        recipes=(
            "efficiency/weaknas-macro",
            "efficiency/weaknas-nasbench101",
            "efficiency/weaknas-nasbench201",
            "efficiency/weaknas-mobilenet",
        ),
        checkpoints="none for the search: configurations of the networks that it found",
    ),
)
