"""Attribution: which part of the input, or of a layer, makes a network respond.

Any classifier will do: torchvision's, timm's, your own. All methods give maps (n, 1, h, w) and leave the model as they
found it.
"""

from saccade.explain.ascent import Ascent, area_distance
from saccade.explain.backprop import deconvnet, grad_cam, gradient, guided_backprop, linear_approx, saliency
from saccade.explain.channels import ChannelResult, channel_attribution, keep_channels_accuracy
from saccade.explain.excitation import contrastive_excitation_backprop, excitation_backprop
from saccade.explain.extremal_perturbation import ExtremalPerturbation, ExtremalResult, extremal_perturbation
from saccade.explain.feature_inversion import feature_inversion
from saccade.explain.maps import class_activation_map, peak
from saccade.explain.perturbation import Perturbation
from saccade.explain.pointing_game import PointingGame
from saccade.explain.rise import rise, rise_maps
from saccade.explain.smooth_mask import SmoothMask
from saccade.explain.targets import contrastive_reward, output_gradient, simple_reward
from saccade.surgery import Probe, get_module

__all__ = [
    "Ascent",
    "ChannelResult",
    "ExtremalPerturbation",
    "ExtremalResult",
    "Perturbation",
    "PointingGame",
    "Probe",
    "SmoothMask",
    "area_distance",
    "channel_attribution",
    "class_activation_map",
    "contrastive_excitation_backprop",
    "contrastive_reward",
    "deconvnet",
    "excitation_backprop",
    "extremal_perturbation",
    "feature_inversion",
    "get_module",
    "grad_cam",
    "gradient",
    "guided_backprop",
    "keep_channels_accuracy",
    "linear_approx",
    "output_gradient",
    "peak",
    "rise",
    "rise_maps",
    "saliency",
    "simple_reward",
]
