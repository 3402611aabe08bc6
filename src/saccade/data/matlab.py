"""Files of MATLAB, up to version 7."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from scipy.io import loadmat
from scipy.io.matlab import MatReadError


def read_mat(path: Path, **options: Any) -> dict[str, Any]:
    """What a file of MATLAB holds.

    Args:
        path: The file.
        options: Of `scipy.io.loadmat`.

    Returns:
        Name to value, without scipy's own entries.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be read; files of version 7.3 are HDF5 and cannot.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        content = loadmat(path, **options)
    except (ValueError, TypeError, IndexError, NotImplementedError, MatReadError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not a MATLAB file up to version 7: {error}") from None
    return {name: value for name, value in content.items() if not name.startswith("__")}
