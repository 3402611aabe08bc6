"""Domain adaptation: carry a classifier over to data that look different from those it was taught on."""

from saccade.adaptation.adversary import DomainDiscriminator, GradientReversal, PredictionConditioning
from saccade.adaptation.cosine_predictor import CosinePredictor, cosine_classifier
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Labelled, Moment, Predictions, Update
from saccade.adaptation.mico import DeCoTa, DeCoTaOutput, decota_losses
from saccade.adaptation.networks import Classifier, digit_classifier, timm_classifier
from saccade.adaptation.schedules import InverseDecayLR, adaptation_factor, inverse_decay_lr
from saccade.adaptation.self_training import MiST, MiSTLoss, MiSTOutput, PseudoLabelling

__all__ = [
    "AdaptationMethod",
    "Classifier",
    "CosinePredictor",
    "DeCoTa",
    "DeCoTaOutput",
    "DomainBatch",
    "DomainDiscriminator",
    "GradientReversal",
    "InverseDecayLR",
    "Labelled",
    "MiST",
    "MiSTLoss",
    "MiSTOutput",
    "Moment",
    "PredictionConditioning",
    "Predictions",
    "PseudoLabelling",
    "Update",
    "adaptation_factor",
    "cosine_classifier",
    "decota_losses",
    "digit_classifier",
    "inverse_decay_lr",
    "timm_classifier",
]
