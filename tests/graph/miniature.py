"""A miniature of ten papers in the files of the Planetoid repository."""

import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import scipy.sparse

FEATURES = np.zeros((10, 8), dtype=np.float32)
FEATURES[np.arange(10), np.arange(10) % 8] = 1
FEATURES[np.arange(10), (3 * np.arange(10) + 1) % 8] = 0.5
FEATURES[7] = 0
LABELS = [0, 1, 2, 0, 1, 2, 0, -1, 2, 1]
"""Paper 7 is in no file, as fifteen papers of Citeseer: no words, no label."""
ORDER = [9, 6, 8]
"""The test papers, in the order of the files."""


def write_planetoid(folder: Path, name: str = "cora", with_features: bool = True) -> None:
    """Write the eight files. Papers 0 to 5 are for training, the first 3 of them labelled in the public split."""
    folder.mkdir(parents=True, exist_ok=True)
    onehot = np.array([np.eye(3, dtype=np.int32)[label] if label >= 0 else np.zeros(3, np.int32) for label in LABELS])
    graph = defaultdict(list, {0: [1, 9, 1], 1: [0, 2], 2: [1, 2], 5: [7], 7: [5], 9: [0]})
    parts = {"y": onehot[:3], "ally": onehot[:6], "ty": onehot[ORDER], "graph": graph}
    if with_features:
        rows = {"x": FEATURES[:3], "allx": FEATURES[:6], "tx": FEATURES[ORDER]}
        parts |= {part: scipy.sparse.csr_matrix(block) for part, block in rows.items()}
    for part, content in parts.items():
        (folder / f"ind.{name}.{part}").write_bytes(pickle.dumps(content, protocol=4))
    (folder / f"ind.{name}.test.index").write_text("\n".join(map(str, ORDER)) + "\n")
