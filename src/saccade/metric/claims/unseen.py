"""How good an embedding is at classes that it has not seen: what claims of this domain measure and show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from saccade.claims import Budget, Cell, Data, Outcome
from saccade.metric.datasets import SmallImages
from saccade.metric.networks import SmallEmbedding
from saccade.metric.retrieval import map_at_r, recall_at_k
from saccade.metric.task import MetricLearning
from saccade.training import fit

BUDGETS: dict[Literal["smoke", "small", "full"], Budget] = {
    "smoke": Budget(1, {"batch": 64, "share": 0.03}),
    "small": Budget(5, {"batch": 64, "share": 1.0}),
    "full": Budget(10, {"batch": 64, "share": 10.0}),
}


def digits(seeds: int, **settings: Any) -> Data:
    """Handwritten digits: 20 classes train, 20 are unseen."""
    about = "scikit-learn's 1,797 real handwritten digits in four orientations: 20 classes train, 20 are unseen"
    return Data(about, settings={"pooled": 1, **settings}, seeds=seeds)


def omniglot(seeds: int | None = None, **settings: Any) -> Data:
    """Drawings of letters: 136 train, 106 are unseen."""
    about = "real Omniglot drawings at 28 x 28: 136 characters train, 106 of three other alphabets are unseen"
    return Data(about, needs="omniglot", settings={"pooled": 4, **settings}, seeds=seeds)


def train_and_retrieve(
    cell: Cell, loss: Callable[[int], nn.Module], *, samples_per_class: int = 0, **task: Any
) -> Outcome:
    """Train on some classes, retrieve among others.

    Args:
        cell: Its settings say `batch`, `steps`, `share` of the steps, and `pooled` cells of the embedding.
        loss: The loss for a number of classes and embeddings of 64.
        samples_per_class: Of the batches; 0 for random ones.
        **task: Of [`MetricLearning`][saccade.metric.task.MetricLearning].

    Returns:
        Metrics, the curve of the training loss, and a sheet of queries with what they find.
    """
    data = SmallImages(
        "omniglot" if cell.data == "omniglot" else "digits",
        root=str(cell.data_root),
        batch_size=cell.settings["batch"],
        samples_per_class=samples_per_class,
        seed=cell.seed,
    )
    model = SmallEmbedding(data.train_images.images.shape[-1], pooled=cell.settings["pooled"])
    learner = MetricLearning(model, loss(data.num_classes), optimizer=lambda groups: Adam(groups, lr=1e-3), **task)
    steps = max(1, round(cell.settings["steps"] * cell.settings["share"]))
    curve = fit(learner, data, steps=steps, seed=cell.seed, device=cell.device, progress=cell.progress)
    metrics, pictures = retrieval_among_unseen_classes(learner, data, cell.device)
    return Outcome(metrics, {"training loss": curve}, pictures)


def retrieval_among_unseen_classes(
    model: nn.Module, data: SmallImages, device: torch.device
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """P@1 and MAP@R in percent, and a sheet of queries with what they find.

    Args:
        model: Images to embeddings.
        data: Its validation classes are the unseen ones.
        device: Where to compute.

    Returns:
        Metrics `p1` and `map`, and the picture with its caption.
    """
    images, labels = data.val_set().tensors
    model.eval()
    with torch.no_grad():
        embeddings = torch.cat([model(chunk.to(device)).cpu() for chunk in images.split(512)])
    metrics = {"p1": 100 * recall_at_k(embeddings, labels, [1])[1], "map": 100 * map_at_r(embeddings, labels)}
    return metrics, {"queries (left) and their nearest among unseen classes": neighbours(images, labels, embeddings)}


def neighbours(images: Tensor, labels: Tensor, embeddings: Tensor, rows: int = 8, most: int = 9) -> np.ndarray:
    """A sheet of queries, one a row, each followed by its nearest: framed green where the class is the same, else red.

    Args:
        images: (n, 1, h, w) in [0, 1].
        labels: (n,).
        embeddings: (n, d).
        rows: Number of queries, evenly spaced over the classes.
        most: Neighbours shown.

    Returns:
        (height, width, 3) uint8.
    """
    classes = labels.unique()
    chosen = classes[torch.linspace(0, len(classes) - 1, rows).long()]
    queries = [int((labels == label).nonzero()[0]) for label in chosen]
    unit = nn.functional.normalize(embeddings, dim=1)
    tile, gap = 48, 6
    sheet = np.full((rows * (tile + gap) + gap, (most + 1) * (tile + gap) + 3 * gap, 3), 255, np.uint8)
    for row, query in enumerate(queries):
        similarity = unit @ unit[query]
        similarity[query] = -torch.inf
        for column, item in enumerate([query, *similarity.topk(most).indices.tolist()]):
            grey = nn.functional.interpolate(images[item][None], size=(tile, tile), mode="nearest")[0, 0]
            top, left = gap + row * (tile + gap), gap + column * (tile + gap) + (2 * gap if column else 0)
            if column:
                colour = (42, 157, 111) if labels[item] == labels[query] else (208, 80, 90)
                sheet[top - 3 : top + tile + 3, left - 3 : left + tile + 3] = colour
            sheet[top : top + tile, left : left + tile] = (255 * (1 - grey)).byte().numpy()[..., None]
    return sheet
