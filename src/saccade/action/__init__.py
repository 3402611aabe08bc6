"""Video action recognition: backbones, drop-in motion blocks, data sets and recipes."""

from saccade.action.motion_squeeze import Motion, MotionSqueeze, kernel_soft_argmax, msnet
from saccade.nn.video_resnet import VideoResNet
from saccade.ops.correlation import local_correlation

__all__ = ["Motion", "MotionSqueeze", "VideoResNet", "kernel_soft_argmax", "local_correlation", "msnet"]
