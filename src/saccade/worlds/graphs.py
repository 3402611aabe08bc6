"""A graph that looks like a citation network: topics, hubs, leaves, and papers that are bags of words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CitationGraph:
    """A graph with its ground truth.

    Args:
        edge_index: Undirected edges (2, e), each once.
        features: Which words a paper contains, 0 or 1.
        labels: Field of each paper.
        communities: Topic within its field, numbered through: what papers of a field have in common beyond it.
        num_classes: Number of fields.
    """

    edge_index: Int[Tensor, "2 e"]
    features: Float[Tensor, "n w"]
    labels: Int[Tensor, " n"]
    communities: Int[Tensor, " n"]
    num_classes: int


def citation_graph(
    seed: int,
    num_nodes: int = 2000,
    num_classes: int = 7,
    communities_per_class: int = 8,
    mean_degree: float = 4.0,
    homophily: float = 0.82,
    vocabulary: int = 1000,
    words_per_node: float = 18.0,
    field_words: float = 0.2,
    topic_words: float = 0.08,
) -> CitationGraph:
    """A degree-corrected planted partition with bags of words; a pure function of its arguments.

    Sizes of fields differ, as in Cora (the largest is four times the smallest). Degrees follow a power law: many papers
    with one or two citations, a few hubs, some with none. An edge stays in its topic with a probability near
    `homophily`, goes to another topic of the field or anywhere else otherwise. A paper's words come from three
    sources: its field, its topic, and the language at large, whose frequencies follow Zipf's law. Words of a topic say
    less about the field, the fewer papers of the topic a predictor has seen: so a predictor that looks at words alone
    errs on whole topics at once, which is what Correct and Smooth lives on.

    Args:
        seed: Everything random comes from it.
        num_nodes: Number of papers.
        num_classes: Number of fields, 2 or more.
        communities_per_class: Number of topics in a field.
        mean_degree: Mean number of citations of a paper.
        homophily: Share of edges that stay in their field.
        vocabulary: Number of words.
        words_per_node: Mean number of words of a paper.
        field_words: Share of words from the field: the smaller, the harder for a predictor that sees words alone.
        topic_words: Share of words from the topic.

    Returns:
        The graph.

    Raises:
        ValueError: Sizes that are too small, or shares outside [0, 1].

    Example:
        >>> world = citation_graph(seed=0, num_nodes=500)
        >>> world.features.shape, int(world.labels.max()) + 1
        (torch.Size([500, 1000]), 7)
        >>> bool((citation_graph(seed=0, num_nodes=500).edge_index == world.edge_index).all())
        True
    """
    if num_classes < 2 or communities_per_class < 1 or num_nodes < num_classes * communities_per_class:
        raise ValueError(f"{num_nodes} papers are too few for {num_classes} fields of {communities_per_class} topics")
    if not (0 <= homophily <= 1 and field_words >= 0 and topic_words >= 0 and field_words + topic_words <= 1):
        raise ValueError("homophily, field_words, topic_words and the sum of the last two lie in [0, 1]")
    random = np.random.default_rng([seed, 20101])
    share = np.linspace(1.6, 0.4, num_classes)
    labels = np.sort(random.choice(num_classes, num_nodes, p=share / share.sum()))
    topics = labels * communities_per_class + random.integers(communities_per_class, size=num_nodes)
    edges = _edges(random, labels, topics, communities_per_class, mean_degree, homophily)
    features = _words(random, labels, topics, vocabulary, words_per_node, field_words, topic_words)
    shuffle = random.permutation(num_nodes)
    place = np.argsort(shuffle)
    return CitationGraph(
        edge_index=torch.from_numpy(place[edges]),
        features=torch.from_numpy(features[shuffle]),
        labels=torch.from_numpy(labels[shuffle]),
        communities=torch.from_numpy(topics[shuffle]),
        num_classes=num_classes,
    )


def _edges(
    random: np.random.Generator,
    labels: np.ndarray,
    topics: np.ndarray,
    per_class: int,
    mean_degree: float,
    homophily: float,
) -> np.ndarray:
    """Each edge draws its first end by popularity and its second end by popularity within topic, field or all."""
    n = len(labels)
    popularity = (1 - random.random(n)) ** (-1 / 2.2)  # Pareto: degrees follow a power law of exponent about 3
    wanted = round(n * mean_degree / 2)
    draws = round(wanted * 1.15) + 10
    first = random.choice(n, draws, p=popularity / popularity.sum())
    chance = random.random(draws)
    # Edges that go anywhere meet their own field by luck: that share is taken off.
    lucky = ((np.bincount(labels, popularity) / popularity.sum()) ** 2).sum()
    inside = max(0.0, (homophily - lucky) / (1 - lucky))
    second = random.choice(n, draws, p=popularity / popularity.sum())
    for groups, chosen in ((topics, chance < 0.75 * inside), (labels, (chance >= 0.75 * inside) & (chance < inside))):
        order = np.argsort(groups, kind="stable")
        heap = np.concatenate([[0.0], np.cumsum(popularity[order])])
        starts = np.searchsorted(groups[order], np.arange(groups.max() + 2))
        group = groups[first[chosen]]
        low, high = heap[starts[group]], heap[starts[group + 1]]
        at = np.searchsorted(heap, low + random.random(len(group)) * (high - low), side="right") - 1
        second[chosen] = order[np.clip(at, starts[group], starts[group + 1] - 1)]
    ends = np.stack([np.minimum(first, second), np.maximum(first, second)])
    ends = ends[:, ends[0] < ends[1]]
    _, kept = np.unique(ends[0] * n + ends[1], return_index=True)
    return ends[:, np.sort(kept)[:wanted]]


def _words(
    random: np.random.Generator,
    labels: np.ndarray,
    topics: np.ndarray,
    vocabulary: int,
    words_per_node: float,
    field_words: float,
    topic_words: float,
) -> np.ndarray:
    """Words drawn from language, field and topic; a paper says which it contains, not how often."""
    language = 1 / (np.arange(vocabulary) + 10.0)
    language /= language.sum()

    def dialects(count: int, size: int) -> np.ndarray:
        chosen = np.stack([random.choice(vocabulary, size, replace=False) for _ in range(count)])
        weights = np.zeros((count, vocabulary))
        np.put_along_axis(weights, chosen, random.gamma(0.5, size=chosen.shape) + 1e-3, 1)
        return weights / weights.sum(1, keepdims=True)

    field = dialects(int(labels.max()) + 1, max(1, vocabulary // 8))[labels]
    topic = dialects(int(topics.max()) + 1, max(1, vocabulary // 40))[topics]
    mixture = (1 - field_words - topic_words) * language + field_words * field + topic_words * topic
    length = random.poisson(words_per_node, len(labels))[:, None]
    return (random.random(mixture.shape) < -np.expm1(-length * mixture)).astype(np.float32)
