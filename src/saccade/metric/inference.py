"""A trained network at work: nearest neighbours and matches of what it embeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saccade.metric.distances import BaseDistance, CosineSimilarity
from saccade.metric.neighbours import CustomKNN, FaissKMeans, FaissKNN, FlatL2, default_device, principal_components

__all__ = [
    "CustomKNN",
    "FaissKMeans",
    "FaissKNN",
    "FlatL2",
    "InferenceModel",
    "MatchFinder",
    "principal_components",
]


class MatchFinder:
    """Which embeddings are near enough to be called the same.

    Args:
        distance: By which.
        threshold: Matches are at most as far (at least as similar); it can be given at each call instead.

    Example:
        >>> finder = MatchFinder(CosineSimilarity(), threshold=0.7)
        >>> finder.get_matching_pairs(torch.eye(2), torch.tensor([[1.0, 0.9]])).tolist()
        [[True], [False]]
    """

    def __init__(self, distance: BaseDistance, threshold: float | None = None) -> None:
        self.distance = distance
        self.threshold = threshold

    @torch.no_grad()
    def get_matching_pairs(
        self,
        query_emb: Float[Tensor, "b d"],
        ref_emb: Float[Tensor, "m d"] | None = None,
        threshold: float | None = None,
        return_tuples: bool = False,
    ) -> Any:
        """All pairs that match.

        Args:
            query_emb: Queries.
            ref_emb: References; the queries themselves where `None`.
            threshold: Instead of the finder's.
            return_tuples: Whether to give pairs of indices instead of the matrix.

        Returns:
            A boolean array (b, m), or a list of (query, reference).
        """
        distances = self.distance(query_emb, query_emb if ref_emb is None else ref_emb)
        matches = self._near(distances, threshold).cpu().numpy()
        return list(zip(*np.where(matches), strict=True)) if return_tuples else matches

    @torch.no_grad()
    def is_match(self, x: Float[Tensor, "b d"], y: Float[Tensor, "b d"], threshold: float | None = None) -> Any:
        """Whether each row of one matches the same row of the other.

        Args:
            x: Embeddings.
            y: Embeddings.
            threshold: Instead of the finder's.

        Returns:
            A bool for one row, else a boolean array (b,).
        """
        matches = self._near(self.distance.pairwise_distance(x, y), threshold)
        return matches.item() if matches.numel() == 1 else matches.cpu().numpy()

    def _near(self, values: Tensor, threshold: float | None) -> Tensor:
        threshold = self.threshold if threshold is None else threshold
        if threshold is None:
            raise ValueError("threshold is None; give one to the finder or to the call")
        return values >= threshold if self.distance.is_inverted else values <= threshold


class InferenceModel:
    """A trained network with its neighbours and matches at hand.

    Args:
        trunk: From an input to features.
        embedder: From features to embeddings; the features themselves where `None`.
        match_finder: Cosine similarity of at least 0.9 where `None`.
        normalize_embeddings: Whether embeddings are divided by their norm.
        knn_func: A [`FaissKNN`][saccade.metric.inference.FaissKNN] that keeps its index where `None`.
        data_device: Where inputs go; CUDA where there is one and it is `None`.
        dtype: Of the inputs, where they are to be cast.

    Example:
        >>> model = InferenceModel(nn.Identity(), data_device="cpu")
        >>> model.train_knn(torch.eye(3))
        >>> model.get_nearest_neighbors(torch.tensor([[0.1, 1.0, 0.0]]), k=1)[1]
        tensor([[1]])
    """

    def __init__(
        self,
        trunk: nn.Module,
        embedder: nn.Module | None = None,
        match_finder: MatchFinder | None = None,
        normalize_embeddings: bool = True,
        knn_func: Any = None,
        data_device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.trunk = trunk
        self.embedder = nn.Identity() if embedder is None else embedder
        self.match_finder = MatchFinder(CosineSimilarity(), threshold=0.9) if match_finder is None else match_finder
        self.knn_func = FaissKNN(reset_before=False, reset_after=False) if knn_func is None else knn_func
        self.normalize_embeddings = normalize_embeddings
        self.data_device = default_device(data_device)
        self.dtype = dtype

    @torch.no_grad()
    def get_embeddings(self, x: Any) -> Tensor:
        """Embed a batch: a tensor, a list of tensors, or whatever the trunk takes."""
        if isinstance(x, list) and all(isinstance(part, Tensor) for part in x):
            x = torch.stack(x)
        if isinstance(x, Tensor):
            x = x.to(self.data_device, self.dtype)
        self.trunk.eval()
        self.embedder.eval()
        embeddings = self.embedder(self.trunk(x))
        return nn.functional.normalize(embeddings, dim=1) if self.normalize_embeddings else embeddings

    def get_embeddings_from_tensor_or_dataset(self, inputs: Any, batch_size: int) -> Tensor:
        """Embed a tensor, a list, or a data set of (input, label), batch by batch.

        Raises:
            TypeError: Something else.
        """
        if isinstance(inputs, Tensor | list):
            parts = [inputs[at : at + batch_size] for at in range(0, len(inputs), batch_size)]
            return torch.cat([self.get_embeddings(part) for part in parts])
        if isinstance(inputs, Dataset):
            loader = DataLoader(inputs, batch_size=batch_size)
            return torch.cat([self.get_embeddings(batch[0]) for batch in loader])
        raise TypeError(f"{type(inputs).__name__} came; a tensor, a list or a torch data set can be indexed")

    def train_knn(self, inputs: Any, batch_size: int = 64) -> None:
        """Embed the inputs, and search them from now on."""
        self.knn_func.train(self.get_embeddings_from_tensor_or_dataset(inputs, batch_size))

    def add_to_knn(self, inputs: Any, batch_size: int = 64) -> None:
        """Embed the inputs, and search them also."""
        self.knn_func.add(self.get_embeddings_from_tensor_or_dataset(inputs, batch_size))

    def get_nearest_neighbors(self, query: Any, k: int) -> tuple[Tensor, Tensor]:
        """Distances and indices of the k nearest of what `train_knn` was given."""
        return self.knn_func(self.get_embeddings(query), k)

    def get_matches(
        self, query: Any, ref: Any = None, threshold: float | None = None, return_tuples: bool = False
    ) -> Any:
        """All pairs that match, of queries and references or of queries among themselves."""
        embedded = self.get_embeddings(query)
        reference = embedded if ref is None else self.get_embeddings(ref)
        return self.match_finder.get_matching_pairs(embedded, reference, threshold, return_tuples)

    def is_match(self, x: Any, y: Any, threshold: float | None = None) -> Any:
        """Whether each input of one batch matches the same of the other."""
        return self.match_finder.is_match(self.get_embeddings(x), self.get_embeddings(y), threshold)

    def save_knn_func(self, filename: str | Path) -> None:
        """Write the index to a file."""
        self.knn_func.save(filename)

    def load_knn_func(self, filename: str | Path) -> None:
        """Read an index from a file."""
        self.knn_func.load(filename)
