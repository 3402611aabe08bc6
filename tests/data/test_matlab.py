from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from saccade.data.matlab import read_mat


@pytest.mark.parametrize("compressed", [False, True])
def test_it_holds_what_was_written_and_nothing_of_scipys(compressed: bool, tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    savemat(tmp_path / "a.mat", {"values": values}, do_compression=compressed)
    content = read_mat(tmp_path / "a.mat")
    assert list(content) == ["values"]
    np.testing.assert_array_equal(content["values"], values)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [0, 3, 16, 100, 130, 0.5, 0.99])
def test_a_file_that_ends_early_is_named(kept: float, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"values": np.random.default_rng(0).random((40, 40))}, do_compression=compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"a\.mat is not a MATLAB file up to version 7"):
        read_mat(path)


def test_hdf5_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    header = b"MATLAB 7.3 MAT-file".ljust(124) + (0x0200).to_bytes(2, "little") + b"IM"
    for content in (header + bytes(64), b"not of MATLAB " * 30):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a MATLAB file up to version 7"):
            read_mat(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_mat(tmp_path / "b.mat")
