"""What all testers share: embedding data sets, choosing queries and references, naming the figures."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saccade.metric.accuracy import AccuracyCalculator
from saccade.metric.hierarchy import LabelMapper, Level, labels_of_level
from saccade.metric.inputs import ArgumentError
from saccade.metric.neighbours import default_device, principal_components
from saccade.metric.progress import with_progress

LOGGER = logging.getLogger("saccade")
Splits = Sequence[tuple[str, Sequence[str]]]
"""Names of splits that query, each with the names of those that are searched."""
EmbeddingsAndLabels = dict[str, tuple[Tensor, Tensor]]


class BaseTester:
    """Embeds data sets; a subclass measures them in `do_knn_and_accuracies`.

    Args:
        normalize_embeddings: Whether embeddings are divided by their norm.
        use_trunk_output: Whether the trunk's output is measured, not the embedder's.
        batch_size: Inputs embedded at a time.
        dataloader_num_workers: Processes that load.
        pca: Project standardised embeddings on so many principal components; not where `None`.
        data_device: Where inputs go; CUDA where there is one and it is `None`.
        dtype: Of the inputs, where they are to be cast.
        data_and_label_getter: From what the loader gives to (input, label).
        label_hierarchy_level: Which columns of labels are measured: one, several, or "all".
        end_of_testing_hook: Called with the tester when `all_accuracies` stand.
        dataset_labels: Labels of the data set, for `set_min_label_to_zero`.
        set_min_label_to_zero: Whether labels are replaced by their ranks.
        accuracy_calculator: An [`AccuracyCalculator`][saccade.metric.accuracy.AccuracyCalculator] of all measures
            where `None`.
        visualizer: With `fit_transform(array)` to two dimensions, such as scikit-learn's TSNE.
        visualizer_hook: Called as `hook(visualizer, points, labels, split, name, epoch)`.

    Attributes:
        all_accuracies: Of the last test: split to figures.
    """

    def __init__(
        self,
        normalize_embeddings: bool = True,
        use_trunk_output: bool = False,
        batch_size: int = 32,
        dataloader_num_workers: int = 2,
        pca: int | None = None,
        data_device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        data_and_label_getter: Callable[[Any], Any] | None = None,
        label_hierarchy_level: Level = 0,
        end_of_testing_hook: Callable[[Any], Any] | None = None,
        dataset_labels: Any = None,
        set_min_label_to_zero: bool = False,
        accuracy_calculator: AccuracyCalculator | None = None,
        visualizer: Any = None,
        visualizer_hook: Callable[..., Any] | None = None,
    ) -> None:
        self.normalize_embeddings = normalize_embeddings
        self.use_trunk_output = use_trunk_output
        self.batch_size = int(batch_size)
        self.dataloader_num_workers = dataloader_num_workers
        self.pca = int(pca) if pca else None
        self.data_device = default_device(data_device)
        self.dtype = dtype
        self.data_and_label_getter = data_and_label_getter or (lambda batch: batch)
        self.label_hierarchy_level = label_hierarchy_level
        self.end_of_testing_hook = end_of_testing_hook
        self.dataset_labels = dataset_labels
        self.set_min_label_to_zero = set_min_label_to_zero
        self.label_mapper = LabelMapper(set_min_label_to_zero, dataset_labels)
        self.accuracy_calculator = AccuracyCalculator() if accuracy_calculator is None else accuracy_calculator
        self.visualizer = visualizer
        self.visualizer_hook = visualizer_hook or (lambda *_: None)
        self.reference_split_names: dict[str, list[str]] = {}
        self.label_levels: Sequence[int] = [0]

    def test(
        self,
        dataset_dict: Mapping[str, Dataset[Any]],
        epoch: int,
        trunk_model: nn.Module,
        embedder_model: nn.Module | None = None,
        splits_to_eval: Splits | None = None,
        collate_fn: Callable[[Any], Any] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Embed and measure.

        Args:
            dataset_dict: Split to data set.
            epoch: Noted with the figures.
            trunk_model: From an input to features.
            embedder_model: From features to embeddings; the features themselves where `None`.
            splits_to_eval: [(query split, [reference splits])]; each split within itself where `None`. A query split
                among its references finds the others of its own, too.
            collate_fn: Of the loader.

        Returns:
            Split to {"epoch", "MEASURE_levelL", and "AVERAGE_MEASURE" where several levels are measured}.
        """
        splits_to_eval, needed = self.get_splits_to_compute_embeddings(dataset_dict, splits_to_eval)
        self.embeddings_and_labels = {
            split: self.get_all_embeddings(dataset_dict[split], trunk_model, embedder_model, collate_fn)
            for split in needed
        }
        self.maybe_visualize(self.embeddings_and_labels, epoch)
        self.all_accuracies: dict[str, dict[str, Any]] = defaultdict(dict)
        for query, references in splits_to_eval:
            self.all_accuracies[query]["epoch"] = epoch
            self.reference_split_names[query] = list(references)
            self.do_knn_and_accuracies(self.all_accuracies[query], self.embeddings_and_labels, query, references)
        if self.end_of_testing_hook:
            self.end_of_testing_hook(self)
        else:
            LOGGER.info("%s", dict(self.all_accuracies))
        del self.embeddings_and_labels
        return self.all_accuracies

    def do_knn_and_accuracies(
        self,
        accuracies: dict[str, Any],
        embeddings_and_labels: EmbeddingsAndLabels,
        query_split_name: str,
        reference_split_names: Sequence[str],
    ) -> None:
        """Measure one query split and put the figures into `accuracies`."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it measures")

    def get_all_embeddings(
        self,
        dataset: Dataset[Any],
        trunk_model: nn.Module,
        embedder_model: nn.Module | None = None,
        collate_fn: Callable[[Any], Any] | None = None,
        eval: bool = True,
        return_as_numpy: bool = False,
    ) -> Any:
        """Embed a data set.

        Args:
            dataset: What.
            trunk_model: From an input to features.
            embedder_model: From features to embeddings.
            collate_fn: Of the loader.
            eval: Whether the networks are set to evaluation first.
            return_as_numpy: Arrays instead of tensors.

        Returns:
            Embeddings (n, d) and labels (n, levels).
        """
        embedder_model = nn.Identity() if embedder_model is None else embedder_model
        if eval:
            trunk_model.eval()
            embedder_model.eval()
        loader = DataLoader(
            dataset, self.batch_size, num_workers=self.dataloader_num_workers, collate_fn=collate_fn, drop_last=False
        )
        embeddings, labels = self.compute_all_embeddings(loader, trunk_model, embedder_model)
        embeddings = self.maybe_normalize(embeddings)
        return (embeddings.cpu().numpy(), labels.cpu().numpy()) if return_as_numpy else (embeddings, labels)

    @torch.no_grad()
    def compute_all_embeddings(
        self, dataloader: DataLoader[Any], trunk_model: nn.Module, embedder_model: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Embed what a loader gives: (n, d) and (n, levels)."""
        embeddings, labels = [], []
        for batch in with_progress(dataloader, len(dataloader), lambda: "embedding"):
            data, label = self.data_and_label_getter(batch)
            labels.append(self._columns(label))
            embeddings.append(self.get_embeddings_for_eval(trunk_model, embedder_model, data))
        return torch.cat(embeddings), torch.cat(labels)

    def get_embeddings_for_eval(self, trunk_model: nn.Module, embedder_model: nn.Module, input_imgs: Any) -> Tensor:
        """Embed a batch."""
        features = trunk_model(input_imgs.to(self.data_device, self.dtype))
        return features if self.use_trunk_output else embedder_model(features)

    def maybe_normalize(self, embeddings: Tensor) -> Tensor:
        """Project and normalise, as asked for."""
        if self.pca:
            spread = embeddings.std(dim=0)
            embeddings = principal_components(embeddings / spread.where(spread > 0, torch.ones_like(spread)), self.pca)
        return F.normalize(embeddings) if self.normalize_embeddings else embeddings

    def maybe_visualize(self, embeddings_and_labels: EmbeddingsAndLabels, epoch: int) -> None:
        """Call the visualiser and its hook for each split and level."""
        if self.visualizer is None:
            return
        name = type(self.visualizer).__name__
        for split, (embeddings, labels) in embeddings_and_labels.items():
            points = self.visualizer.fit_transform(embeddings.cpu().numpy())
            for level in self.label_levels_to_evaluate(labels):
                key = self.accuracies_keyname(name, label_hierarchy_level=level)
                self.visualizer_hook(self.visualizer, points, labels[:, level].cpu().numpy(), split, key, epoch)

    def get_splits_to_compute_embeddings(
        self, dataset_dict: Mapping[str, Dataset[Any]], splits_to_eval: Splits | None
    ) -> tuple[list[tuple[str, list[str]]], list[str]]:
        """The splits with the query first among its references, and all that have to be embedded.

        Raises:
            ValueError: A split that queries twice, or that there is not.
        """
        chosen = [(name, [name]) for name in dataset_dict] if splits_to_eval is None else splits_to_eval
        queries = [query for query, _ in chosen]
        if len(set(queries)) < len(queries):
            raise ArgumentError(f"the query splits are {queries}; each may stand once")
        ordered = [
            (query, [query] * (query in references) + [name for name in references if name != query])
            for query, references in chosen
        ]
        needed = list(dict.fromkeys(name for query, references in ordered for name in (query, *references)))
        strange = [name for name in needed if name not in dataset_dict]
        if strange:
            raise ValueError(f"the split {strange[0]!r} is not in the dataset_dict; {', '.join(dataset_dict)} are")
        return ordered, needed

    def set_reference_and_query(
        self, embeddings_and_labels: EmbeddingsAndLabels, query_split_name: str, reference_split_names: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query embeddings and labels, then those of all references."""
        references = [embeddings_and_labels[name] for name in reference_split_names]
        embeddings, labels = (torch.cat(part) for part in zip(*references, strict=True))
        return (*embeddings_and_labels[query_split_name], embeddings, labels)

    def ref_includes_query(self, query_split_name: str, reference_split_names: Sequence[str]) -> bool:
        """Whether queries are among the references."""
        return query_split_name in reference_split_names

    def label_levels_to_evaluate(self, query_labels: Tensor) -> Sequence[int]:
        """Columns of labels that are measured.

        Raises:
            ValueError: The labels do not have them.
        """
        available = query_labels.shape[1]
        if self.label_hierarchy_level == "all":
            return range(available)
        level = self.label_hierarchy_level
        levels = [level] if isinstance(level, int) else [int(at) for at in level]
        if max(levels) >= available:
            raise ArgumentError(f"label_hierarchy_level is {level}; the labels have {available} levels, from 0")
        return levels

    def calculate_average_accuracies(
        self, accuracies: dict[str, Any], metrics: Sequence[str], label_levels: Sequence[int]
    ) -> None:
        """Add the mean over levels of each measure."""
        for metric in metrics:
            names = [self.accuracies_keyname(metric, label_hierarchy_level=level) for level in label_levels]
            average = sum(accuracies[name] for name in names) / len(names)
            accuracies[self.accuracies_keyname(metric, average=True)] = average

    def accuracies_keyname(self, metric: str, label_hierarchy_level: Level = 0, average: bool = False) -> str:
        """What a figure is called: "MEASURE_levelL" or "AVERAGE_MEASURE"."""
        if average:
            return f"AVERAGE_{metric}"
        if not isinstance(label_hierarchy_level, int) and len(self.label_levels) == 1:
            label_hierarchy_level = self.label_levels[0]
        return f"{metric}_level{self.label_hierarchy_level_to_str(label_hierarchy_level)}"

    def label_hierarchy_level_to_str(self, label_hierarchy_level: Level) -> str:
        """Such as "0", "0_1" or "all"."""
        if isinstance(label_hierarchy_level, int | str):
            return str(label_hierarchy_level)
        return "_".join(str(level) for level in label_hierarchy_level)

    def description_suffixes(self, base_name: str) -> str:
        """A name for records that says how embeddings are made and measured."""
        parts = [
            base_name,
            f"pca{self.pca}" if self.pca else "",
            "normalized" if self.normalize_embeddings else "",
            "trunk" if self.use_trunk_output else "",
            type(self).__name__,
            f"level_{self.label_hierarchy_level_to_str(self.label_hierarchy_level)}",
            self.accuracy_calculator.description(),
        ]
        return "_".join(part for part in parts if part)

    def _columns(self, label: Any) -> Tensor:
        labels = labels_of_level(label, "all", self.label_mapper).to(self.data_device)
        return labels.unsqueeze(1) if labels.ndim == 1 else labels
