"""How good an embedding is at classes that it has not seen: what claims of this domain measure and show."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from saccade.metric.datasets import SmallImages
from saccade.metric.retrieval import map_at_r, recall_at_k


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
