"""`saccade.metric.losses`, and the bases from which the reference library's users derive."""

from saccade.metric.losses import *  # noqa: F403
from saccade.metric.losses import BaseMetricLossFunction, WeightedLoss
from saccade.metric.losses.memory import LossWrapper as BaseLossWrapper  # noqa: F401
from saccade.metric.tuples import masks_of, to_pairs

EmbeddingRegularizerMixin = BaseMetricLossFunction
WeightRegularizerMixin = WeightedLoss


class GenericPairLoss(BaseMetricLossFunction):
    """A loss of the values of positive and negative pairs, or of the matrix and two masks."""

    def __init__(self, mat_based_loss, **kwargs):
        super().__init__(**kwargs)
        self.mat_based_loss = mat_based_loss

    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        mat = self.distance(embeddings, ref_emb)
        if self.mat_based_loss:
            return self._compute_loss(mat, *masks_of(indices_tuple, labels, ref_labels, mat.shape))
        tuples = to_pairs(indices_tuple, labels, ref_labels)
        pairs = mat[tuples[0], tuples[1]], mat[tuples[2], tuples[3]]
        return self._compute_loss(*pairs, tuples)

    def _compute_loss(self, *arguments):
        raise NotImplementedError
