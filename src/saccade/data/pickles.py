"""Data sets that their authors published as pickles, read without running what a pickle may name."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

ADMITTED = {
    "numpy": {"ndarray", "dtype"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "scipy.sparse": {"csr_matrix"},
    "collections": {"defaultdict", "OrderedDict"},
    "builtins": {"list", "dict", "set"},
}
"""What a pickle may name. Nothing of it runs code of the file's choosing."""


def safe_unpickle(path: Path) -> Any:
    """Read a pickle that holds arrays, sparse matrices, lists and dicts; refuse any other.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        ValueError: It names something else, or is damaged.
    """
    try:
        return _ArraysAlone(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        raise ValueError(f"{path} is no intact pickle: {type(error).__name__}: {error}") from None


class _ArraysAlone(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What the pickle names, where it is admitted."""
        module = module.replace("__builtin__", "builtins").replace("numpy._core.", "numpy.core.")
        if module.startswith("scipy.sparse."):
            module = "scipy.sparse"
        if name not in ADMITTED.get(module, ()):
            raise pickle.UnpicklingError(f"refused, for it names {module}.{name}: only arrays and sparse matrices may")
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            module = module.replace("numpy.core.", "numpy._core.")
        return super().find_class(module, name)
