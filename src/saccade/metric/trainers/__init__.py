"""Trainers: training loops for metric losses, for people who keep their own (the Lightning task is the other way)."""

from saccade.metric.trainers.adversarial import DeepAdversarialMetricLearning
from saccade.metric.trainers.base import BaseTrainer
from saccade.metric.trainers.cascaded import CascadedEmbeddings
from saccade.metric.trainers.single import MetricLossOnly, TrainWithClassifier, TwoStreamMetricLoss

__all__ = [
    "BaseTrainer",
    "CascadedEmbeddings",
    "DeepAdversarialMetricLearning",
    "MetricLossOnly",
    "TrainWithClassifier",
    "TwoStreamMetricLoss",
]
