"""Node classification on graphs: what can be said about things that are connected.

Import parts from here: [`CorrectAndSmooth`][saccade.graph.CorrectAndSmooth] improves the predictions of any classifier
whose samples are nodes of a graph, [`LabelPropagation`][saccade.graph.LabelPropagation] needs no classifier at all.
"""

from saccade.graph.adjacency import Graph, normalized_adjacency
from saccade.graph.correct_and_smooth import CorrectAndSmooth, LabelPropagation, correct_and_smooth_all, propagate
from saccade.graph.features import diffusion_features, spectral_features
from saccade.graph.tuning import Tuned, draw_settings, tune

__all__ = [
    "CorrectAndSmooth",
    "Graph",
    "LabelPropagation",
    "Tuned",
    "correct_and_smooth_all",
    "diffusion_features",
    "draw_settings",
    "normalized_adjacency",
    "propagate",
    "spectral_features",
    "tune",
]
