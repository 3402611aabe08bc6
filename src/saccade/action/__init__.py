"""Video action recognition: backbones, drop-in motion blocks, data sets and recipes."""

from saccade.action.autox3d import AutoX3D, X3DSearchSpace, multiply_adds
from saccade.action.gta import CrossChannelTemporalMixing, GlobalTemporalAttention, gta_resnet, insert_gta
from saccade.action.motion_squeeze import Motion, MotionSqueeze, kernel_soft_argmax, msnet
from saccade.action.motionformer import Motionformer, motionformer_base, motionformer_hr, motionformer_large
from saccade.action.selfy import SELFYBlock, insert_selfy, selfynet
from saccade.action.x3d_search import SearchSettings, X3DSearchResult, search_x3d
from saccade.action.x3d_supernet import X3DSupernet
from saccade.nn.architectures import ArchitectureSpace, CategoricalArchitectureDistribution, CostTables
from saccade.nn.fair_channels import fair_channel_masks, fair_channel_slices
from saccade.nn.probabilistic_search import ProbabilisticSearch, cost_penalty, importance_weights, num_samples
from saccade.nn.space_time_attention import JointSpaceTimeAttention, TrajectoryAttention
from saccade.nn.video_resnet import VideoResNet
from saccade.nn.video_vit import DividedSpaceTimeBlock, VideoTransformer
from saccade.nn.x3d import X3D, X3DBlock, x3d_l, x3d_m, x3d_s, x3d_xs
from saccade.nn.x3d_architecture import BlockPlan, X3DArchitecture
from saccade.ops.correlation import local_correlation, spatio_temporal_self_similarity
from saccade.ops.frame_attention import (
    nystrom_attention,
    orthoformer_attention,
    orthogonal_prototypes,
    performer_attention,
)

__all__ = [
    "X3D",
    "ArchitectureSpace",
    "AutoX3D",
    "BlockPlan",
    "CategoricalArchitectureDistribution",
    "CostTables",
    "CrossChannelTemporalMixing",
    "DividedSpaceTimeBlock",
    "GlobalTemporalAttention",
    "JointSpaceTimeAttention",
    "Motion",
    "MotionSqueeze",
    "Motionformer",
    "ProbabilisticSearch",
    "SELFYBlock",
    "SearchSettings",
    "TrajectoryAttention",
    "VideoResNet",
    "VideoTransformer",
    "X3DArchitecture",
    "X3DBlock",
    "X3DSearchResult",
    "X3DSearchSpace",
    "X3DSupernet",
    "cost_penalty",
    "fair_channel_masks",
    "fair_channel_slices",
    "gta_resnet",
    "importance_weights",
    "insert_gta",
    "insert_selfy",
    "kernel_soft_argmax",
    "local_correlation",
    "motionformer_base",
    "motionformer_hr",
    "motionformer_large",
    "msnet",
    "multiply_adds",
    "num_samples",
    "nystrom_attention",
    "orthoformer_attention",
    "orthogonal_prototypes",
    "performer_attention",
    "search_x3d",
    "selfynet",
    "spatio_temporal_self_similarity",
    "x3d_l",
    "x3d_m",
    "x3d_s",
    "x3d_xs",
]
