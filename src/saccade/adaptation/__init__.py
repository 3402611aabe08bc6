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
from saccade.adaptation.mico import DeCoTa, DeCoTaOutput, decota_losses
from saccade.adaptation.mist import MiST, MiSTLoss, MiSTOutput, PseudoLabelling
from saccade.adaptation.mstn import CPUA, MSTN, MovingCentroids
from saccade.adaptation.networks import Classifier, digit_classifier, timm_classifier
from saccade.adaptation.schedules import InverseDecayLR, adaptation_factor, inverse_decay_lr
from saccade.adaptation.self_training import SelfTrainingLoss

__all__ = [
    "CMSS",
    "CPUA",
    "MSTN",
    "AdaptationMethod",
    "CMSSObjective",
    "Classifier",
    "CosinePredictor",
    "CurriculumManager",
    "DSBNStage1",
    "DSBNStage2",
    "DeCoTa",
    "DeCoTaOutput",
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
    "MiST",
    "MiSTLoss",
    "MiSTOutput",
    "Moment",
    "MovingCentroids",
    "PredictionConditioning",
    "Predictions",
    "PseudoLabelling",
    "SelfTrainingLoss",
    "Update",
    "adaptation_factor",
    "convert_batchnorm",
    "convert_dsbn",
    "cosine_classifier",
    "curriculum_weights",
    "decota_losses",
    "digit_classifier",
    "digits_five_classifier",
    "digits_five_discriminator",
    "digits_five_manager",
    "dsbn_discriminator",
    "dsbn_lenet",
    "dsbn_resnet",
    "effective_sample_size",
    "inverse_decay_lr",
    "merge_domain",
    "set_domain",
    "single_domain",
    "source_share",
    "timm_classifier",
    "timm_manager",
    "use_domain",
    "weighted_domain_loss",
]
