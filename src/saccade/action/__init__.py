"""Video action recognition: backbones, drop-in motion blocks, data sets and recipes."""

from saccade.action.gta import CrossChannelTemporalMixing, GlobalTemporalAttention, gta_resnet, insert_gta
from saccade.action.motion_squeeze import Motion, MotionSqueeze, kernel_soft_argmax, msnet
from saccade.action.motionformer import Motionformer, motionformer_base, motionformer_hr, motionformer_large
from saccade.action.selfy import SELFYBlock, insert_selfy, selfynet
from saccade.nn.space_time_attention import JointSpaceTimeAttention, TrajectoryAttention
from saccade.nn.video_resnet import VideoResNet
from saccade.nn.video_vit import DividedSpaceTimeBlock, VideoTransformer
from saccade.ops.correlation import local_correlation, spatio_temporal_self_similarity
from saccade.ops.frame_attention import (
    nystrom_attention,
    orthoformer_attention,
    orthogonal_prototypes,
    performer_attention,
)

__all__ = [
    "CrossChannelTemporalMixing",
    "DividedSpaceTimeBlock",
    "GlobalTemporalAttention",
    "JointSpaceTimeAttention",
    "Motion",
    "MotionSqueeze",
    "Motionformer",
    "SELFYBlock",
    "TrajectoryAttention",
    "VideoResNet",
    "VideoTransformer",
    "gta_resnet",
    "insert_gta",
    "insert_selfy",
    "kernel_soft_argmax",
    "local_correlation",
    "motionformer_base",
    "motionformer_hr",
    "motionformer_large",
    "msnet",
    "nystrom_attention",
    "orthoformer_attention",
    "orthogonal_prototypes",
    "performer_attention",
    "selfynet",
    "spatio_temporal_self_similarity",
]
