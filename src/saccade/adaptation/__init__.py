"""Domain adaptation: carry a classifier over to data that look different from those it was taught on."""

from saccade.adaptation.adversary import DomainDiscriminator, GradientReversal, PredictionConditioning
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Labelled, Moment, Predictions, Update
from saccade.adaptation.networks import Classifier, digit_classifier, timm_classifier
from saccade.adaptation.schedules import InverseDecayLR, adaptation_factor, inverse_decay_lr

__all__ = [
    "AdaptationMethod",
    "Classifier",
    "DomainBatch",
    "DomainDiscriminator",
    "GradientReversal",
    "InverseDecayLR",
    "Labelled",
    "Moment",
    "PredictionConditioning",
    "Predictions",
    "Update",
    "adaptation_factor",
    "digit_classifier",
    "inverse_decay_lr",
    "timm_classifier",
]
