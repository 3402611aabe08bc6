"""The list of methods: data alone, so that `saccade list` answers at once. Importing it imports no torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One published method and where its three faces are.

    Args:
        slug: Its name everywhere: on the command line, in files, in the ledger.
        name: What people call it.
        title: The paper's title.
        arxiv: The paper's arXiv number.
        domain: The folder it lives in.
        summary: One sentence: what it is for.
        repository: The authors' code, `owner/name`; empty where none is published.
        licence: Licence of the authors' code, as far as it is known.
        parts: Dotted paths of what one imports, `package.module:Name`; empty: the method is planned, not built.
        claim: Dotted path of the claim.
        recipes: Names of recipes, `domain/recipe`.
        converter: Dotted path of the function that turns the authors' state dict into ours.
        checkpoints: What the authors published, in one sentence.
    """

    slug: str
    name: str
    title: str
    arxiv: str
    domain: str
    summary: str
    repository: str = ""
    licence: str = ""
    parts: tuple[str, ...] = ()
    claim: str = ""
    recipes: tuple[str, ...] = ()
    converter: str = ""
    checkpoints: str = ""

    @property
    def status(self) -> str:
        """`built` or `planned`."""
        return "built" if self.parts else "planned"

    @property
    def recipe_commands(self) -> tuple[str, ...]:
        """What one types to run each recipe: attribution is scored, searches, measurements run, the others trained."""
        kinds = {
            "explain/pointing": "saccade pointing {} --root ROOT --weights FILE",
            "efficiency/weaknas": "saccade nas-search SOURCE --recipe {}",
            "efficiency/migperf": "saccade bench jobs {}",
        }
        commands = (
            next((text for start, text in kinds.items() if recipe.startswith(start)), "saccade fit --config {}")
            for recipe in self.recipes
        )
        return tuple(command.format(recipe) for command, recipe in zip(commands, self.recipes, strict=True))


DOMAINS: dict[str, str] = {
    "action": "recognise what happens in a video",
    "multimodal": "learn from picture, sound and text together",
    "grounding": "find the moment of a video that a sentence describes",
    "metric": "learn embeddings to search and compare with",
    "adaptation": "carry a classifier over to data that look different",
    "restoration": "repair images and videos",
    "weak": "learn boxes and masks from little annotation",
    "faces": "analyse, protect and edit faces",
    "forensics": "tell generated media from real ones",
    "explain": "show what a network looks at",
    "efficiency": "make networks small and fast, and measure it",
    "graph": "classify things that are connected",
    "flows": "model densities on curved spaces",
    "medical": "outline organs and structures in scans",
    "crowd": "count people, and audit the counters",
    "intent": "recognise why a picture was posted",
}

NO_LICENCE = "none named: no licence file"

METHODS: tuple[Method, ...] = (
    Method(
        slug="affinitynet",
        name="AffinityNet",
        title=(
            "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised Semantic "
            "Segmentation"
        ),
        arxiv="1803.10464",
        domain="weak",
        summary=(
            "Turns image-level tags into pixel-level masks: it learns which neighbouring pixels belong together "
            "and lets class scores walk along them."
        ),
        repository="jiwoon-ahn/psa",
        licence="MIT",
    ),
    Method(
        slug="autox3d",
        name="Auto-X3D",
        title="Auto-X3D: Ultra-Efficient Video Understanding via Finer-Grained Neural Architecture Search",
        arxiv="2112.04710",
        domain="action",
        summary=(
            "Searches a video network for a given compute budget, block by block, with one sampled network in "
            "memory at a time."
        ),
        parts=(
            "saccade.action.autox3d:AutoX3D",
            "saccade.action.autox3d:X3DSearchSpace",
            "saccade.action.autox3d:multiply_adds",
            "saccade.action.x3d_supernet:X3DSupernet",
            "saccade.action.x3d_search:SearchSettings",
            "saccade.action.x3d_search:search_x3d",
            "saccade.nn.architectures:ArchitectureSpace",
            "saccade.nn.architectures:CategoricalArchitectureDistribution",
            "saccade.nn.architectures:CostTables",
            "saccade.nn.probabilistic_search:ProbabilisticSearch",
            "saccade.nn.probabilistic_search:importance_weights",
            "saccade.nn.probabilistic_search:num_samples",
            "saccade.nn.fair_channels:fair_channel_masks",
            "saccade.nn.x3d:X3D",
        ),
        claim="saccade.action.claims:AUTOX3D",
        recipes=(
            "action/autox3d-search-s-kinetics",
            "action/autox3d-search-m-kinetics",
            "action/autox3d-search-l-kinetics",
            "action/autox3d-s-kinetics",
            "action/autox3d-m-kinetics",
            "action/autox3d-l-kinetics",
            "action/autox3d-search-m-ssv2",
            "action/autox3d-m-ssv2",
        ),
        converter="saccade.action.checkpoints:convert_x3d",
        checkpoints=(
            "None of Auto-X3D; the converter takes those of X3D (XS, S, M and L on Kinetics-400) from SlowFast and "
            "PyTorchVideo, whose code is Apache-2.0"
        ),
    ),
    Method(
        slug="behavior-biometrics",
        name="Behavior Biometrics",
        title="Detecting Deep-Fake Videos from Appearance and Behavior",
        arxiv="2004.14491",
        domain="faces",
        summary=(
            "Finds face swaps of enrolled, consenting people: the clip looks like one person and moves like another."
        ),
    ),
    Method(
        slug="cmss",
        name="CMSS",
        title="Curriculum Manager for Source Selection in Multi-Source Domain Adaptation",
        arxiv="2007.01261",
        domain="adaptation",
        summary=(
            "Adapts a classifier from many mixed sources to an unlabelled target, weighting the source images "
            "that transfer at each moment."
        ),
        parts=(
            "saccade.adaptation.cmss:CMSS",
            "saccade.adaptation.cmss:CurriculumManager",
            "saccade.adaptation.cmss:CMSSObjective",
            "saccade.adaptation.cmss:curriculum_weights",
            "saccade.adaptation.cmss:weighted_domain_loss",
            "saccade.adaptation.cmss:effective_sample_size",
            "saccade.adaptation.cmss:source_share",
            "saccade.adaptation.cmss_networks:digits_five_classifier",
            "saccade.adaptation.cmss_networks:digits_five_discriminator",
            "saccade.adaptation.cmss_networks:digits_five_manager",
            "saccade.adaptation.cmss_networks:timm_manager",
        ),
        claim="saccade.adaptation.claims.cmss:CMSS_CLAIM",
        recipes=(
            "adaptation/cmss-digits-five",
            "adaptation/cmss-pacs",
            "adaptation/cmss-domainnet",
            "adaptation/cmss-office-caltech",
        ),
        checkpoints="none published",
    ),
    Method(
        slug="correct-and-smooth",
        name="Correct and Smooth",
        title="Combining Label Propagation and Simple Models Out-performs Graph Neural Networks",
        arxiv="2010.13993",
        domain="graph",
        summary=(
            "Improves any classifier whose samples are nodes of a graph: it spreads the known errors, then the "
            "predictions, along the edges, in seconds and without training."
        ),
        repository="CUAI/CorrectAndSmooth",
        licence=NO_LICENCE,
        parts=(
            "saccade.graph:CorrectAndSmooth",
            "saccade.graph:LabelPropagation",
            "saccade.graph:propagate",
            "saccade.graph:normalized_adjacency",
            "saccade.graph:tune",
            "saccade.graph:spectral_features",
            "saccade.graph:diffusion_features",
        ),
        claim="saccade.graph.claims:CORRECT_AND_SMOOTH",
        recipes=(
            "graph/correct-and-smooth-citations",
            "graph/correct-and-smooth-cora",
            "graph/correct-and-smooth-citeseer",
        ),
        checkpoints="none: base predictions are made anew",
    ),
    Method(
        slug="dal-gan",
        name="DAL-GAN",
        title="Heterogeneous Face Frontalization via Domain Agnostic Learning",
        arxiv="2107.08311",
        domain="faces",
        summary=(
            "Turns a thermal face seen from the side into a visible one seen from the front, so that it can be "
            "compared with a gallery."
        ),
    ),
    Method(
        slug="david",
        name="DAVID",
        title="DAVID: Dual-Attentional Video Deblurring",
        arxiv="1912.03445",
        domain="restoration",
        summary=(
            "Sharpens shaky video whose blur changes over time, mixing several networks by attention on how much "
            "blur there is."
        ),
    ),
    Method(
        slug="deblurgan-v2",
        name="DeblurGAN-v2",
        title="DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better",
        arxiv="1908.03826",
        domain="restoration",
        summary=(
            "Sharpens a single motion-blurred photograph; its backbone is exchangeable, from large and good to "
            "small and fast."
        ),
        repository="VITA-Group/DeblurGANv2",
        licence="BSD-3-Clause",
    ),
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
        slug="dmba",
        name="DMBA",
        title="Backdoor Attacks on Crowd Counting",
        arxiv="2207.05641",
        domain="crowd",
        summary=(
            "Audits one's own crowd counter: how would it react had its training data been tampered with, and "
            "which repair helps?"
        ),
        repository="Nathangitlab/Backdoor-Attacks-on-Crowd-Counting",
        licence="MIT",
    ),
    Method(
        slug="dsbn",
        name="DSBN",
        title="Domain-Specific Batch Normalization for Unsupervised Domain Adaptation",
        arxiv="1906.03950",
        domain="adaptation",
        summary=(
            "Adapts a classifier to new-looking images with a batch normalisation of its own for each domain and "
            "all else shared."
        ),
        repository="wgchang/DSBN",
        licence=NO_LICENCE,
        parts=(
            "saccade.adaptation.dsbn:convert_dsbn",
            "saccade.adaptation.dsbn:use_domain",
            "saccade.adaptation.dsbn:merge_domain",
            "saccade.adaptation.domain_batch_norm:DomainSpecificBatchNorm1d",
            "saccade.adaptation.domain_batch_norm:DomainSpecificBatchNorm2d",
            "saccade.adaptation.domain_batch_norm:DomainSpecificBatchNorm3d",
            "saccade.adaptation.mstn:MSTN",
            "saccade.adaptation.mstn:CPUA",
            "saccade.adaptation.mstn:MovingCentroids",
            "saccade.adaptation.self_training:SelfTrainingLoss",
            "saccade.adaptation.dsbn_stages:DSBNStage1",
            "saccade.adaptation.dsbn_stages:DSBNStage2",
            "saccade.adaptation.dsbn_networks:dsbn_lenet",
            "saccade.adaptation.dsbn_networks:dsbn_resnet",
        ),
        claim="saccade.adaptation.claims.dsbn:DSBN",
        recipes=(
            "adaptation/dsbn-digits",
            "adaptation/dsbn-office31-mstn",
            "adaptation/dsbn-office31-cpua",
            "adaptation/dsbn-office31-multi",
            "adaptation/dsbn-office31-stage2",
            "adaptation/dsbn-office-home-mstn",
            "adaptation/dsbn-office-home-cpua",
            "adaptation/dsbn-office-home-multi",
            "adaptation/dsbn-office-home-stage2",
            "adaptation/dsbn-visda-mstn",
            "adaptation/dsbn-visda-cpua",
            "adaptation/dsbn-visda-stage2",
        ),
        converter="saccade.adaptation.checkpoints:convert_dsbn_checkpoint",
        checkpoints="none by the authors; the converter reads what their training code saves",
    ),
    Method(
        slug="dscnet",
        name="DSCNet",
        title="Unsupervised Temporal Video Grounding with Deep Semantic Clustering",
        arxiv="2201.05307",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes in a video, trained without knowing which sentence "
            "belongs to which video."
        ),
    ),
    Method(
        slug="ecrl",
        name="ECRL",
        title="Transform-Equivariant Consistency Learning for Temporal Sentence Grounding",
        arxiv="2305.04123",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes, trained so that a cut or shifted video gives a cut or "
            "shifted answer."
        ),
    ),
    Method(
        slug="extremal-perturbation",
        name="Extremal Perturbation",
        title="Understanding Deep Networks via Extremal Perturbations and Smooth Masks",
        arxiv="1910.08485",
        domain="explain",
        summary=(
            "Shows which part of an image a network looks at: the smooth mask of a given area that keeps its "
            "answer strongest; with eight further attribution methods."
        ),
        repository="facebookresearch/TorchRay",
        licence="CC BY-NC 4.0",
        parts=(
            "saccade.explain:ExtremalPerturbation",
            "saccade.explain:SmoothMask",
            "saccade.explain:Perturbation",
            "saccade.explain:channel_attribution",
            "saccade.explain:feature_inversion",
            "saccade.explain:gradient",
            "saccade.explain:guided_backprop",
            "saccade.explain:deconvnet",
            "saccade.explain:grad_cam",
            "saccade.explain:linear_approx",
            "saccade.explain:excitation_backprop",
            "saccade.explain:contrastive_excitation_backprop",
            "saccade.explain:rise",
            "saccade.explain:PointingGame",
        ),
        claim="saccade.explain.claims:EXTREMAL_PERTURBATION",
        recipes=(
            "explain/pointing-voc07-vgg16",
            "explain/pointing-voc07-resnet50",
            "explain/pointing-coco14-vgg16",
            "explain/pointing-coco14-resnet50",
        ),
        converter="saccade.explain.checkpoints:convert",
        checkpoints="VGG16 and ResNet-50 classifiers for VOC 2007 and COCO 2014, converted from Caffe, as .pth.tar",
    ),
    Method(
        slug="gdt",
        name="GDT",
        title="On Compositions of Transformations in Contrastive Self-Supervised Learning",
        arxiv="2003.04298",
        domain="multimodal",
        summary=(
            "Learns video and sound features from unlabelled clips, with a choice of what they should ignore and "
            "what they should tell apart."
        ),
        repository="facebookresearch/GDT",
        licence="CC BY-NC 4.0",
    ),
    Method(
        slug="gradient-harmonization",
        name="Gradient Harmonization",
        title="Scaling Multimodal Pre-Training via Cross-Modality Gradient Harmonization",
        arxiv="2211.02077",
        domain="multimodal",
        summary=(
            "Keeps the losses of video, sound and text from pulling a shared network apart, and drops samples "
            "whose parts do not fit."
        ),
    ),
    Method(
        slug="gta",
        name="GTA",
        title="GTA: Global Temporal Attention for Video Action Understanding",
        arxiv="2012.08510",
        domain="action",
        summary="Adds an attention over time to a video network whose pattern is learned once and shared by all clips.",
        parts=(
            "saccade.action.gta:GlobalTemporalAttention",
            "saccade.action.gta:CrossChannelTemporalMixing",
            "saccade.action.gta:insert_gta",
            "saccade.action.gta:gta_resnet",
        ),
        claim="saccade.action.claims:GTA",
        recipes=("action/gta-ssv1", "action/gta-ssv2", "action/gta-kinetics"),
    ),
    Method(
        slug="intentonomy",
        name="Intentonomy",
        title="Intentonomy: a Dataset and Study towards Human Intent Understanding",
        arxiv="2011.05558",
        domain="intent",
        summary=(
            "Recognises why somebody posted a picture, with classes that look at the objects or at the scene, as "
            "suits them."
        ),
        repository="KMnP/intentonomy",
        licence="CC BY-NC 4.0",
    ),
    Method(
        slug="irnet",
        name="IRNet",
        title="Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
        arxiv="1904.05044",
        domain="weak",
        summary=(
            "Turns image-level tags into masks of single objects by learning where classes end and where each "
            "object's centre is."
        ),
        repository="jiwoon-ahn/irn",
        licence="MIT",
    ),
    Method(
        slug="jpeg",
        name="JPEG defects",
        title="Analyzing and Mitigating JPEG Compression Defects in Deep Learning",
        arxiv="2011.08932",
        domain="restoration",
        summary=(
            "Measures how much JPEG compression costs a recogniser and wins it back with a correction network "
            "trained for the task."
        ),
        repository="Queuecumber/torchjpeg",
        licence="MIT",
    ),
    Method(
        slug="lns",
        name="DeepStationing",
        title=(
            "DeepStationing: Thoracic Lymph Node Station Parsing in CT Scans using Anatomical Context Encoding "
            "and Key Organ Auto-Search"
        ),
        arxiv="2109.09271",
        domain="medical",
        summary=(
            "Outlines lymph node stations in chest CT, guided by the organs around them, and finds which organs "
            "are needed (research only)."
        ),
    ),
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
        slug="mgsl-net",
        name="MGSL-Net",
        title="Memory-Guided Semantic Learning Network for Temporal Sentence Grounding",
        arxiv="2201.00454",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes, with a memory that helps with words and scenes seen but "
            "a few times."
        ),
    ),
    Method(
        slug="mhst",
        name="MHST",
        title="Hypotheses Tree Building for One-Shot Temporal Sentence Localization",
        arxiv="2301.01871",
        domain="grounding",
        summary="Finds the moment that a sentence describes, trained with a single marked frame for each sentence.",
    ),
    Method(
        slug="mico",
        name="MiCo / DeCoTa",
        title="Deep Co-Training with Task Decomposition for Semi-Supervised Domain Adaptation",
        arxiv="2007.12684",
        domain="adaptation",
        summary=(
            "Adapts a classifier with a handful of labelled target images: two networks with different tasks "
            "teach each other."
        ),
        repository="LoyoYang/DeCoTa",
        licence=NO_LICENCE,
        parts=(
            "saccade.adaptation:DeCoTa",
            "saccade.adaptation:decota_losses",
            "saccade.adaptation:CosinePredictor",
            "saccade.adaptation:cosine_classifier",
            "saccade.adaptation:MiST",
            "saccade.adaptation:MiSTLoss",
            "saccade.adaptation:PseudoLabelling",
        ),
        claim="saccade.adaptation.claims:MICO",
        recipes=(
            "adaptation/mico-domainnet-1shot",
            "adaptation/mico-domainnet-3shot",
            "adaptation/mico-office-home-1shot",
            "adaptation/mico-office-home-3shot",
        ),
        converter="saccade.adaptation.checkpoints:convert_mico",
        checkpoints=(
            "Two networks for real to clipart in the authors' repository, and what their code writes when it trains; "
            "one file a network"
        ),
    ),
    Method(
        slug="micromotion",
        name="Micromotion",
        title=(
            "Grasping the Arrow of Time from the Singularity: Decoding Micromotion in Low-dimensional Latent "
            "Spaces from StyleGAN"
        ),
        arxiv="2204.12696",
        domain="faces",
        summary=(
            "Finds the one latent direction of a small face motion, such as a smile, and applies it to other "
            "synthetic faces."
        ),
        repository="wuqiuche/micromotion-styleGAN",
        licence="MIT",
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
        slug="mmp",
        name="MMP",
        title="Multilingual Multimodal Pre-training for Zero-Shot Cross-Lingual Transfer of Vision-Language Models",
        arxiv="2103.08849",
        domain="multimodal",
        summary="Searches videos in nine languages with English annotation alone.",
        repository="berniebear/Multi-HT100M",
        licence=NO_LICENCE,
    ),
    Method(
        slug="motion-squeeze",
        name="MotionSqueeze",
        title="MotionSqueeze: Neural Motion Feature Learning for Video Understanding",
        arxiv="2007.09933",
        domain="action",
        summary="Gives an image-based video network a sense of motion through one small block, without optical flow.",
        repository="arunos728/MotionSqueeze",
        licence="BSD-2-Clause",
        parts=(
            "saccade.action.motion_squeeze:MotionSqueeze",
            "saccade.action.motion_squeeze:kernel_soft_argmax",
            "saccade.action.motion_squeeze:msnet",
            "saccade.ops.correlation:local_correlation",
            "saccade.nn.video_resnet:VideoResNet",
        ),
        claim="saccade.action.claims:MOTION_SQUEEZE",
        recipes=(
            "action/motion-squeeze-ssv1",
            "action/motion-squeeze-ssv2",
            "action/motion-squeeze-kinetics",
            "action/motion-squeeze-ucf101",
            "action/motion-squeeze-hmdb51",
        ),
        converter="saccade.action.checkpoints:convert_motion_squeeze",
        checkpoints="None published; files of the authors' training code are taken.",
    ),
    Method(
        slug="motionformer",
        name="Motionformer",
        title="Keeping Your Eye on the Ball: Trajectory Attention in Video Transformers",
        arxiv="2106.05392",
        domain="action",
        summary="Classifies videos with a transformer whose attention follows things as they move.",
        repository="facebookresearch/Motionformer",
        licence="Apache-2.0",
        parts=(
            "saccade.action.motionformer:Motionformer",
            "saccade.nn.space_time_attention:TrajectoryAttention",
            "saccade.nn.space_time_attention:JointSpaceTimeAttention",
            "saccade.nn.video_vit:DividedSpaceTimeBlock",
            "saccade.nn.video_vit:VideoTransformer",
            "saccade.ops.frame_attention:frame_attention",
            "saccade.ops.frame_attention:orthoformer_attention",
            "saccade.ops.frame_attention:orthogonal_prototypes",
            "saccade.ops.frame_attention:nystrom_attention",
            "saccade.ops.frame_attention:performer_attention",
            "saccade.action.checkpoints:load_motionformer_checkpoint",
        ),
        claim="saccade.action.claims:MOTIONFORMER",
        recipes=(
            "action/motionformer-kinetics",
            "action/motionformer-kinetics600",
            "action/motionformer-ssv2",
            "action/motionformer-epic",
        ),
        converter="saccade.action.checkpoints:convert_motionformer",
        checkpoints=(
            "Kinetics-400, Kinetics-600, Something-Something V2 and EPIC-Kitchens-100, base, HR and L, with joint and "
            "divided attention for two of them; trained without the projection of the temporal values"
        ),
    ),
    Method(
        slug="neural-manifold-ode",
        name="Neural Manifold ODE",
        title="Neural Manifold Ordinary Differential Equations",
        arxiv="2006.10254",
        domain="flows",
        summary=(
            "Models densities on curved spaces, such as events on the globe, with flows that never leave the surface."
        ),
        repository="CUAI/Neural-Manifold-Ordinary-Differential-Equations",
        licence=NO_LICENCE,
        parts=(
            "saccade.flows:ManifoldODE",
            "saccade.flows:ManifoldCNF",
            "saccade.flows:TangentField",
            "saccade.flows:OriginField",
            "saccade.flows:Sphere",
            "saccade.flows:Hyperboloid",
            "saccade.flows:Product",
            "saccade.flows:VonMisesFisher",
            "saccade.flows:WrappedNormal",
            "saccade.flows:HyperbolicVAE",
        ),
        claim="saccade.flows.claims.neural_manifold_ode:NEURAL_MANIFOLD_ODE",
        recipes=(
            "flows/manifold-ode-volcano",
            "flows/manifold-ode-earthquake",
            "flows/manifold-ode-flood",
            "flows/manifold-ode-fire",
            "flows/manifold-ode-sphere-4wrapped",
            "flows/manifold-ode-sphere-bigcheckerboard",
            "flows/manifold-ode-hyperboloid-5gaussians",
            "flows/manifold-ode-hyperboloid-bigcheckerboard",
            "flows/hyperbolic-vae-bdp",
            "flows/hyperbolic-vae-mnist",
        ),
        converter="saccade.flows.checkpoints:convert_manifold_ode",
        checkpoints="none published; the converter takes those that the authors' code writes",
    ),
    Method(
        slug="patch-forensics",
        name="Patch Forensics",
        title="What makes fake images detectable? Understanding properties that generalize",
        arxiv="2008.10588",
        domain="forensics",
        summary="Tells generated from real images patch by patch, and shows where the picture gives itself away.",
        repository="chail/patch-forensics",
        licence=NO_LICENCE,
    ),
    Method(
        slug="physical-fas",
        name="Physical-cue face anti-spoofing",
        title="Uncertainty-Aware Physically-Guided Proxy Tasks for Unseen Domain Face Anti-spoofing",
        arxiv="2011.14054",
        domain="faces",
        summary=(
            "Tells a live face from a print, a screen or a mask by depth, reflection and material, and says how "
            "sure it is."
        ),
    ),
    Method(
        slug="pros",
        name="ProS",
        title="ProS: Facial Omni-Representation Learning via Prototype-based Self-Distillation",
        arxiv="2311.01929",
        domain="faces",
        summary=(
            "Learns one face backbone from unlabelled pictures that serves attributes, expressions, landmarks and "
            "retrieval."
        ),
        repository="protagolabs/Netmind-FaceAnalysis",
        licence=NO_LICENCE,
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
    Method(
        slug="selavi",
        name="SeLaVi",
        title="Labelling unlabelled videos from scratch with multi-modal self-supervision",
        arxiv="2006.13662",
        domain="multimodal",
        summary="Sorts an unlabelled video archive into groups by looking and listening.",
        repository="facebookresearch/selavi",
        licence="CC BY-NC 4.0",
    ),
    Method(
        slug="selfy",
        name="SELFY",
        title="Learning Self-Similarity in Space and Time as Generalized Motion for Video Action Recognition",
        arxiv="2102.07092",
        domain="action",
        summary=(
            "Gives a video network long-range motion through one block that compares each place with its "
            "surroundings in space and time."
        ),
        repository="arunos728/SELFY",
        licence=NO_LICENCE,
        parts=(
            "saccade.action.selfy:SELFYBlock",
            "saccade.action.selfy:selfynet",
            "saccade.action.selfy:insert_selfy",
            "saccade.ops.correlation:spatio_temporal_self_similarity",
        ),
        claim="saccade.action.claims:SELFY",
        recipes=(
            "action/selfy-ssv1",
            "action/selfy-ssv2",
            "action/selfy-diving48",
            "action/selfy-gym99",
            "action/selfy-gym288",
            "action/selfy-kinetics",
        ),
        converter="saccade.action.checkpoints:convert_selfy",
        checkpoints="none published; files of the authors' training code are taken",
    ),
    Method(
        slug="ssrn",
        name="SSRN",
        title="Rethinking the Video Sampling and Reasoning Strategies for Temporal Sentence Grounding",
        arxiv="2301.00514",
        domain="grounding",
        summary=(
            "Finds the moment that a sentence describes more exactly, by reading a long video at several offsets "
            "at once."
        ),
    ),
    Method(
        slug="stica",
        name="STiCA",
        title="Space-Time Crop & Attend: Improving Cross-modal Video Representation Learning",
        arxiv="2103.10211",
        domain="multimodal",
        summary="Pre-trains video networks on few GPUs: crops are taken from features instead of from frames.",
        repository="facebookresearch/GDT",
        licence="CC BY-NC 4.0",
    ),
    Method(
        slug="support-set",
        name="Support-set bottlenecks",
        title="Support-set bottlenecks for video-text representation learning",
        arxiv="2010.02824",
        domain="multimodal",
        summary="Learns to search videos by text without pushing apart clips that mean the same.",
    ),
    Method(
        slug="u-said",
        name="U-SAID",
        title="Segmentation-Aware Image Denoising without Knowing True Segmentation",
        arxiv="1905.08965",
        domain="restoration",
        summary="Denoises images so that regions and edges survive, without any segmentation labels.",
        repository="VITA-Group/USAID",
        licence=NO_LICENCE,
    ),
    Method(
        slug="ubbr",
        name="UBBR",
        title="Universal Bounding Box Regression and Its Applications",
        arxiv="1904.06805",
        domain="weak",
        summary="Moves any rough box to the nearest object, also of classes that it never saw.",
    ),
    Method(
        slug="ug2",
        name="UG^2",
        title="Bridging the Gap Between Computational Photography and Visual Recognition",
        arxiv="1901.09482",
        domain="restoration",
        summary="Scores an image restorer twice: does it look better to people, and do recognisers see more?",
        repository="rosauravidal/UG2_classification_eval",
        licence=NO_LICENCE,
    ),
    Method(
        slug="urie",
        name="URIE",
        title="URIE: Universal Image Enhancement for Visual Recognition in the Wild",
        arxiv="2007.08979",
        domain="restoration",
        summary="Makes bad images recognisable for a fixed recogniser by a small network in front of it.",
        repository="taeyoungson/urie",
        licence=NO_LICENCE,
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
    Method(
        slug="web-video-seg",
        name="Web-video segmentation",
        title="Weakly Supervised Semantic Segmentation using Web-Crawled Videos",
        arxiv="1701.00352",
        domain="weak",
        summary="Learns to segment images from their tags and a folder of short clips found by the class names.",
    ),
)


def find(slug: str) -> Method:
    """The method of that slug.

    Args:
        slug: As in `saccade list`.

    Returns:
        Its entry.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    for method in METHODS:
        if method.slug == slug:
            return method
    near = difflib.get_close_matches(slug, [method.slug for method in METHODS], n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`saccade list` prints them all"
    raise ValueError(f"no method {slug!r}: {hint}")
