"""`saccade search`: one query, and the search alone.

Limit: a query is one forward pass of the network; the search reads all embeddings once.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from saccade.bench import Comparison
from saccade.metric.embedder import ModelSpec, load_embedder
from saccade.metric.image_index import ImageIndex, build_index
from saccade.metric.nearest import Searcher


def comparisons() -> Iterator[Comparison]:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "images")
        folder.mkdir()
        for number in range(20):
            Image.fromarray(random.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
        for name in ("resnet18", "mobilenetv3_small_100"):
            embedder = load_embedder(ModelSpec(name, "none"))
            build_index(folder, Path(place, name), embedder)
            index = ImageIndex.open(Path(place, name), embedder)
            index.searcher = Searcher(torch.nn.functional.normalize(torch.randn(2000, index.searcher.items.shape[1])))
            index.files = [f"{number}.jpg" for number in range(2000)]
            yield Comparison(
                name=f"a query by file among 2,000 images, {name}",
                ours=lambda index=index: index.query(folder / "3.jpg", keep_itself=True),
                peer=lambda: time.sleep(0.05),
                peer_name="the target of 50 ms",
                limit="one forward pass",
            )
    for count in (2_000, 200_000):
        items, query = torch.randn(count, 512), torch.randn(1, 512)
        searcher = Searcher(items, faiss_from=10**9)
        peer = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(items.numpy())
        yield Comparison(
            name=f"the ten nearest of {count:,} embeddings, d 512",
            ours=lambda searcher=searcher, query=query: searcher(query, 10),
            peer=lambda peer=peer, query=query: peer.kneighbors(query.numpy()),
            peer_name="scikit-learn",
            limit="reading all embeddings once",
        )
