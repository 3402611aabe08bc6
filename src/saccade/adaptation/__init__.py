"""Domain adaptation: carry a classifier over to data that look different from those it was taught on."""

from saccade.adaptation.adversary import DomainDiscriminator, GradientReversal, PredictionConditioning
from saccade.adaptation.dsbn import (
    DomainBatchNorm1d,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
    DomainSpecificBatchNorm1d,
    DomainSpecificBatchNorm2d,
    DomainSpecificBatchNorm3d,
    convert_batchnorm,
    convert_dsbn,
    merge_domain,
    set_domain,
    single_domain,
    use_domain,
)
from saccade.adaptation.dsbn_networks import dsbn_discriminator, dsbn_lenet, dsbn_resnet
from saccade.adaptation.dsbn_stages import DSBNStage1, DSBNStage2
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Labelled, Moment, Predictions, Update
from saccade.adaptation.mstn import CPUA, MSTN, MovingCentroids
from saccade.adaptation.networks import Classifier, digit_classifier, timm_classifier
from saccade.adaptation.schedules import InverseDecayLR, adaptation_factor, inverse_decay_lr
from saccade.adaptation.self_training import SelfTrainingLoss

__all__ = [
    "CPUA",
    "MSTN",
    "AdaptationMethod",
    "Classifier",
    "DSBNStage1",
    "DSBNStage2",
    "DomainBatch",
    "DomainBatchNorm1d",
    "DomainBatchNorm2d",
    "DomainBatchNorm3d",
    "DomainDiscriminator",
    "DomainSpecificBatchNorm1d",
    "DomainSpecificBatchNorm2d",
    "DomainSpecificBatchNorm3d",
    "GradientReversal",
    "InverseDecayLR",
    "Labelled",
    "Moment",
    "MovingCentroids",
    "PredictionConditioning",
    "Predictions",
    "SelfTrainingLoss",
    "Update",
    "adaptation_factor",
    "convert_batchnorm",
    "convert_dsbn",
    "digit_classifier",
    "dsbn_discriminator",
    "dsbn_lenet",
    "dsbn_resnet",
    "inverse_decay_lr",
    "merge_domain",
    "set_domain",
    "single_domain",
    "timm_classifier",
    "use_domain",
]
