"""Domain adaptation: carry a classifier over to data that look different from those it was taught on."""

from saccade.adaptation.adversary import DomainDiscriminator, GradientReversal, PredictionConditioning
from saccade.adaptation.cmss import (
    CMSS,
    CMSSObjective,
    CurriculumManager,
    curriculum_weights,
    effective_sample_size,
    source_share,
    weighted_domain_loss,
)
from saccade.adaptation.cmss_networks import (
    digits_five_classifier,
    digits_five_discriminator,
    digits_five_manager,
    timm_manager,
)
from saccade.adaptation.cosine_predictor import CosinePredictor, cosine_classifier
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Labelled, Moment, Predictions, Update
from saccade.adaptation.mico import DeCoTa, DeCoTaOutput, decota_losses
from saccade.adaptation.mist import MiST, MiSTLoss, MiSTOutput, PseudoLabelling
from saccade.adaptation.networks import Classifier, digit_classifier, timm_classifier
from saccade.adaptation.schedules import InverseDecayLR, adaptation_factor, inverse_decay_lr

__all__ = [
    "CMSS",
    "AdaptationMethod",
    "CMSSObjective",
    "Classifier",
    "CosinePredictor",
    "CurriculumManager",
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
    "curriculum_weights",
    "decota_losses",
    "digit_classifier",
    "digits_five_classifier",
    "digits_five_discriminator",
    "digits_five_manager",
    "effective_sample_size",
    "inverse_decay_lr",
    "source_share",
    "timm_classifier",
    "timm_manager",
    "weighted_domain_loss",
]
