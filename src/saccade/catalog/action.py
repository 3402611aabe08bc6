"""The methods of the domain `action`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
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
)
