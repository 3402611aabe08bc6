"""Testers that differ in what a query is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saccade.metric.inputs import ArgumentError
from saccade.metric.progress import with_progress
from saccade.metric.testers.base import BaseTester, EmbeddingsAndLabels


class GlobalEmbeddingSpaceTester(BaseTester):
    """Compares each query with all references, at each level of labels.

    Args:
        *args: As for [`BaseTester`][saccade.metric.testers.BaseTester].
        **kwargs: The same.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from saccade.metric.accuracy import AccuracyCalculator
        >>> points = TensorDataset(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), torch.arange(4) // 2)
        >>> tester = GlobalEmbeddingSpaceTester(
        ...     dataloader_num_workers=0, accuracy_calculator=AccuracyCalculator(include=("precision_at_1",)))
        >>> tester.test({"val": points}, 1, nn.Identity())["val"]
        {'epoch': 1, 'precision_at_1_level0': 1.0}
    """

    def do_knn_and_accuracies(
        self,
        accuracies: dict[str, Any],
        embeddings_and_labels: EmbeddingsAndLabels,
        query_split_name: str,
        reference_split_names: Sequence[str],
    ) -> None:
        """Measure each level."""
        query, query_labels, reference, reference_labels = self.set_reference_and_query(
            embeddings_and_labels, query_split_name, reference_split_names
        )
        includes = self.ref_includes_query(query_split_name, reference_split_names)
        self.label_levels = self.label_levels_to_evaluate(query_labels)
        for level in self.label_levels:
            figures = self.accuracy_calculator.get_accuracy(
                query, query_labels[:, level], reference, reference_labels[:, level], includes
            )
            for metric, value in figures.items():
                accuracies[self.accuracies_keyname(metric, label_hierarchy_level=level)] = value
        if len(self.label_levels) > 1:
            self.calculate_average_accuracies(
                accuracies, self.accuracy_calculator.get_curr_metrics(), self.label_levels
            )


class WithSameParentLabelTester(BaseTester):
    """Compares each query with the references of its parent label, one level higher; figures are means over parents.

    Args:
        *args: As for [`BaseTester`][saccade.metric.testers.BaseTester].
        **kwargs: The same.
    """

    def do_knn_and_accuracies(
        self,
        accuracies: dict[str, Any],
        embeddings_and_labels: EmbeddingsAndLabels,
        query_split_name: str,
        reference_split_names: Sequence[str],
    ) -> None:
        """Measure each level that has one above it."""
        query, query_labels, reference, reference_labels = self.set_reference_and_query(
            embeddings_and_labels, query_split_name, reference_split_names
        )
        includes = self.ref_includes_query(query_split_name, reference_split_names)
        levels = query_labels.shape[1]
        self.label_levels = [level for level in self.label_levels_to_evaluate(query_labels) if level < levels - 1]
        if not self.label_levels:
            raise ArgumentError(
                f"label_hierarchy_level is {self.label_hierarchy_level}; of {levels} levels those below the last have"
                " a parent"
            )
        for level in self.label_levels:
            figures: dict[str, list[float]] = defaultdict(list)
            for parent in query_labels[:, level + 1].unique():
                own, other = query_labels[:, level + 1] == parent, reference_labels[:, level + 1] == parent
                measured = self.accuracy_calculator.get_accuracy(
                    query[own], query_labels[own, level], reference[other], reference_labels[other, level], includes
                )
                for metric, value in measured.items():
                    figures[metric].append(value)
            for metric, values in figures.items():
                accuracies[self.accuracies_keyname(metric, label_hierarchy_level=level)] = float(np.mean(values))
        if len(self.label_levels) > 1:
            self.calculate_average_accuracies(
                accuracies, self.accuracy_calculator.get_curr_metrics(), self.label_levels
            )


class GlobalTwoStreamEmbeddingSpaceTester(GlobalEmbeddingSpaceTester):
    """For data sets of (anchor, other, label): anchors query, the others are searched.

    Args:
        *args: As for [`BaseTester`][saccade.metric.testers.BaseTester].
        **kwargs: The same.
    """

    @torch.no_grad()
    def compute_all_embeddings(  # type: ignore[override]
        self, dataloader: DataLoader[Any], trunk_model: nn.Module, embedder_model: nn.Module
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of anchors and of the others, (n, d), and labels (n, levels)."""
        found = []
        for batch in with_progress(dataloader, len(dataloader), lambda: "embedding"):
            anchors, others, label = self.data_and_label_getter(batch)
            embedded = [self.get_embeddings_for_eval(trunk_model, embedder_model, part) for part in (anchors, others)]
            found.append((*embedded, self._columns(label)))
        anchors, others, labels = (torch.cat(part) for part in zip(*found, strict=True))
        return anchors, others, labels

    def get_all_embeddings(
        self,
        dataset: Dataset[Any],
        trunk_model: nn.Module,
        embedder_model: nn.Module | None = None,
        collate_fn: Callable[[Any], Any] | None = None,
        eval: bool = True,
        return_as_numpy: bool = False,
    ) -> Any:
        """Embeddings (2n, d), anchors first, and labels (2n, levels)."""
        embedder_model = nn.Identity() if embedder_model is None else embedder_model
        if eval:
            trunk_model.eval()
            embedder_model.eval()
        loader = DataLoader(
            dataset, self.batch_size, num_workers=self.dataloader_num_workers, collate_fn=collate_fn, drop_last=False
        )
        anchors, others, labels = self.compute_all_embeddings(loader, trunk_model, embedder_model)
        embeddings = torch.cat([self.maybe_normalize(anchors), self.maybe_normalize(others)])
        labels = torch.cat([labels, labels])
        return (embeddings.cpu().numpy(), labels.cpu().numpy()) if return_as_numpy else (embeddings, labels)

    def set_reference_and_query(
        self, embeddings_and_labels: EmbeddingsAndLabels, query_split_name: str, reference_split_names: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Anchors and labels, then the others and labels."""
        if list(reference_split_names) != [query_split_name]:
            raise ArgumentError(
                f"{query_split_name!r} is to search {list(reference_split_names)}; {type(self).__name__} searches the"
                " second stream of the split itself"
            )
        embeddings, labels = embeddings_and_labels[query_split_name]
        half = len(embeddings) // 2
        return embeddings[:half], labels[:half], embeddings[half:], labels[half:]

    def ref_includes_query(self, query_split_name: str, reference_split_names: Sequence[str]) -> bool:
        """Never: the streams are different samples."""
        return False
