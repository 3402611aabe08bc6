"""Losses over two views of the same samples: self-supervision."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.metric.losses.base import BaseMetricLossFunction, elements
from saccade.metric.losses.memory import LossWrapper
from saccade.metric.reducers import LossDict
from saccade.metric.tuples import IndicesTuple


class VICRegLoss(BaseMetricLossFunction):
    r"""Variance-invariance-covariance regularisation (arXiv:2105.04906, eq. 6): `loss(view, ref_emb=other_view)`.

    Mean squared difference of the views; hinge on the standard deviation of each feature; squared covariances of
    different features. No labels, no pairs, no negatives.

    Args:
        invariance_lambda: Weight of the first.
        variance_mu: Weight of the second.
        covariance_v: Weight of the third.
        eps: Added to variances.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction], without `distance`
            and `embedding_regularizer`.

    Raises:
        ValueError: A distance, a regulariser, labels or a tuple; views of different shapes.

    Example:
        >>> VICRegLoss()(torch.randn(8, 4), ref_emb=torch.randn(8, 4)).shape
        torch.Size([])
    """

    takes_labels = False
    takes_tuples = False

    def __init__(
        self,
        invariance_lambda: float = 25,
        variance_mu: float = 25,
        covariance_v: float = 1,
        eps: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        for name in ("distance", "embedding_regularizer"):
            if name in kwargs:
                raise ValueError(f"{name} came; VICRegLoss does not take any")
        super().__init__(**kwargs)
        self.invariance_lambda = invariance_lambda
        self.variance_mu = variance_mu
        self.covariance_v = covariance_v
        self.eps = eps

    def _sub_loss_names(self) -> list[str]:
        return ["invariance_loss", "variance_loss1", "variance_loss2", "covariance_loss"]

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if ref_labels is not None:
            raise ValueError("ref_labels came; VICRegLoss does not take any")
        if ref_emb.shape != embeddings.shape:
            raise ValueError(f"the views have the shapes {tuple(embeddings.shape)} and {tuple(ref_emb.shape)}")
        invariance = (embeddings - ref_emb).square().mean(dim=1)
        covariance = self._covariance(embeddings) + self._covariance(ref_emb)
        return {
            "invariance_loss": elements(self.invariance_lambda * invariance),
            "variance_loss1": elements(self.variance_mu * self._variance(embeddings)),
            "variance_loss2": elements(self.variance_mu * self._variance(ref_emb)),
            "covariance_loss": elements(self.covariance_v * covariance),
        }

    def _variance(self, view: Tensor) -> Tensor:
        """Of each feature, half the hinge: the mean of both views is the paper's."""
        return (1 - (view.var(dim=0) + self.eps).sqrt()).relu() / 2

    @staticmethod
    def _covariance(view: Tensor) -> Tensor:
        """Of each feature, the squared covariances with the others; their mean is the paper's sum over d."""
        centred = view - view.mean(dim=0)
        covariance = centred.T @ centred / (len(view) - 1)
        return covariance.square().sum(dim=1) - covariance.diagonal().square()


class SelfSupervisedLoss(LossWrapper):
    """Any loss over pairs or triplets, for two views: row i of one is the positive of row i of the other.

    Args:
        loss: The inner loss.
        symmetric: Whether both views are anchors: they are joined to one batch. Else the first is compared with the
            second.

    Raises:
        ValueError: A loss that is not one of `supported_losses()`.

    Example:
        >>> from saccade.metric.losses import NTXentLoss
        >>> SelfSupervisedLoss(NTXentLoss())(torch.randn(8, 4), torch.randn(8, 4)).shape
        torch.Size([])
    """

    def __init__(self, loss: nn.Module, symmetric: bool = True) -> None:
        super().__init__(loss)
        self.symmetric = symmetric

    @staticmethod
    def supported_losses() -> list[str]:
        """Names of the classes that fit."""
        return [name for name in LossWrapper.supported_losses() if name != "MarginLoss"]

    def forward(self, embeddings: Float[Tensor, "b d"], ref_emb: Float[Tensor, "b d"]) -> Any:
        """The loss of two views.

        Args:
            embeddings: One view.
            ref_emb: The other, row by row of the same samples.

        Returns:
            A scalar.
        """
        if embeddings.shape != ref_emb.shape:
            raise ValueError(f"the views have the shapes {tuple(embeddings.shape)} and {tuple(ref_emb.shape)}")
        labels = torch.arange(len(embeddings), device=embeddings.device)
        if self.symmetric:
            return self.loss(torch.cat([embeddings, ref_emb]), torch.cat([labels, labels]))
        return self.loss(embeddings, labels, ref_emb=ref_emb, ref_labels=labels.clone())
