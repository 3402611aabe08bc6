"""Base predictors: classifiers that see each node alone, trained on the full batch in seconds.

Source: arXiv:2010.13993, section 2.1, with the settings of the authors' code: Adam with a learning rate of 0.01, 300
epochs (linear: 1000), and the state with the best validation accuracy is kept.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.graph.nodes import labelled_index

Base = Literal["linear", "mlp"]
EPOCHS: dict[Base, int] = {"linear": 1000, "mlp": 300}


@dataclass(frozen=True)
class SparseFeatures:
    """Bags of words and other features that are mostly 0, kept so that a linear layer is quick both ways.

    Args:
        matrix: Sparse CSR (n, f).
        transposed: Its transpose, sparse CSR (f, n), which the gradient needs.

    Example:
        >>> features = SparseFeatures.of(torch.eye(3))
        >>> features.shape, features.rows(torch.tensor([2])).matrix.to_dense()
        (torch.Size([3, 3]), tensor([[0., 0., 1.]]))
    """

    matrix: Tensor
    transposed: Tensor

    @classmethod
    def of(cls, features: Tensor) -> SparseFeatures:
        """From any dense or sparse matrix (n, f)."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR tensor support is in beta|invariant checks)")
            coo = features.to_sparse_coo().coalesce()
            return cls(coo.to_sparse_csr(), coo.t().coalesce().to_sparse_csr())

    @property
    def shape(self) -> torch.Size:
        """(n, f)."""
        return self.matrix.shape

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def rows(self, index: Int[Tensor, " l"]) -> SparseFeatures:
        """Those nodes alone."""
        return SparseFeatures.of(self.matrix.to_sparse_coo().index_select(0, index))

    def to(self, device: torch.device | str) -> SparseFeatures:
        """On that device."""
        return SparseFeatures(self.matrix.to(device), self.transposed.to(device))


Features = Tensor | SparseFeatures


class _SparseProduct(torch.autograd.Function):
    """`X W^T` for a constant sparse X: the gradient of W is one more sparse product."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(transposed)
        return torch.sparse.mm(matrix, weight.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, torch.sparse.mm(ctx.saved_tensors[0], gradients[0].contiguous()).t()


class FeatureLinear(nn.Linear):
    """A linear layer that takes dense features (n, f) or [`SparseFeatures`][saccade.graph.base.SparseFeatures]."""

    def forward(self, features: Features) -> Float[Tensor, "n o"]:
        """Features (n, f) to (n, o)."""
        if isinstance(features, SparseFeatures):
            with torch.autocast(self.weight.device.type, enabled=False):
                return _SparseProduct.apply(features.matrix, features.transposed, self.weight) + self.bias
        return super().forward(features)


class MLP(nn.Module):
    """Linear layers with batch normalisation, ReLU and dropout between them.

    Args:
        in_features: Size of a node's features.
        num_classes: Number of classes.
        hidden: Width between layers: 256 in the paper, 200 on products, 64 here on the small graphs.
        num_layers: Number of linear layers; 1 is the linear predictor.
        dropout: Rate.
        norm: Whether batch normalisation comes `before` ReLU (arxiv) or `after` it (products).

    Raises:
        ValueError: No layer, a rate outside [0, 1), or another place for the norm.

    Example:
        >>> MLP(in_features=5, num_classes=3, hidden=8)(torch.rand(4, 5)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: int = 256,
        num_layers: int = 3,
        dropout: float = 0.5,
        norm: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__()
        if num_layers < 1 or not 0 <= dropout < 1 or norm not in ("before", "after"):
            raise ValueError(
                f"an MLP has 1 or more layers, dropout in [0, 1) and its norm before or after ReLU, "
                f"not {num_layers}, {dropout} and {norm!r}"
            )
        sizes = [in_features, *[hidden] * (num_layers - 1), num_classes]
        self.layers = nn.ModuleList(FeatureLinear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:-1])
        self.dropout, self.norm = dropout, norm

    def forward(self, features: Features) -> Float[Tensor, "n k"]:
        """Logits of the classes from features (n, f)."""
        x: Any = features
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = layer(x)
            x = norm(x).relu() if self.norm == "before" else norm(x.relu())
            x = F.dropout(x, self.dropout, self.training)
        return self.layers[-1](x)


def base_predictor(kind: Base, in_features: int, num_classes: int, hidden: int = 64) -> MLP:
    """The paper's `linear` predictor or its three-layer `mlp`, initialised from torch's global generator.

    Args:
        kind: Which of the two.
        in_features: Size of a node's features.
        num_classes: Number of classes.
        hidden: Width of the MLP.

    Returns:
        The predictor, untrained.

    Raises:
        ValueError: Another kind.
    """
    if kind not in EPOCHS:
        raise ValueError(f"unknown base predictor {kind!r}: one of {', '.join(EPOCHS)}")
    return MLP(in_features, num_classes, hidden, num_layers=1 if kind == "linear" else 3)


@dataclass(frozen=True)
class Fitted:
    """A trained base predictor's answers.

    Args:
        prob: Class probabilities of all nodes.
        valid_accuracy: Best accuracy on the validation nodes, 0 to 1, whose state gave `prob`.
        loss: Training loss after each epoch.
        valid: Validation accuracy after each epoch, 0 to 1.
    """

    prob: Float[Tensor, "n k"]
    valid_accuracy: float
    loss: list[float]
    valid: list[float]


def fit_base(
    model: nn.Module,
    features: Features,
    labels: Int[Tensor, " n"],
    train: Int[Tensor, " t"] | Bool[Tensor, " n"],
    valid: Int[Tensor, " v"] | Bool[Tensor, " n"],
    epochs: int = 300,
    lr: float = 0.01,
    weight_decay: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Train on the full batch of training nodes; keep the state that predicts the validation nodes best.

    Args:
        model: Takes features, gives logits. Holds the kept state afterwards.
        features: Of all nodes, (n, f), dense or sparse.
        labels: Of all nodes; anything on nodes that are not labelled.
        train: Nodes to train on.
        valid: Nodes to choose the epoch by.
        epochs: Steps of Adam.
        lr: Learning rate.
        weight_decay: Of Adam.
        progress: Called with the share that is done.

    Returns:
        Probabilities and curves.

    Raises:
        ValueError: Nodes out of range or none, or fewer than one epoch.
    """
    if epochs < 1:
        raise ValueError(f"training takes 1 epoch or more, not {epochs}")
    train, valid = labelled_index(train, len(labels)), labelled_index(valid, len(labels))
    train_x, valid_x = _rows(features, train), _rows(features, valid)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    best, kept = -1.0, model.state_dict()
    losses: list[float] = []
    accuracies: list[float] = []
    for epoch in range(epochs):
        model.train()
        optimiser.zero_grad()
        loss = F.cross_entropy(model(train_x), labels[train])
        loss.backward()
        optimiser.step()
        model.eval()
        with torch.no_grad():
            accuracy = float((model(valid_x).argmax(1) == labels[valid]).double().mean())
        losses.append(float(loss.detach()))
        accuracies.append(accuracy)
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
        if progress is not None:
            progress((epoch + 1) / epochs)
    model.load_state_dict(kept)
    with torch.no_grad():
        prob = model(features).softmax(1)
    return Fitted(prob, best, losses, accuracies)


def _rows(features: Features, index: Int[Tensor, " l"]) -> Features:
    return features.rows(index) if isinstance(features, SparseFeatures) else features[index]
