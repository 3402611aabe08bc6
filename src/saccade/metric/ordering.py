"""Sorting rows, with ties decided by position, so that a result never depends on chance."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def order_of_rows(values: Float[Tensor, "b m"], dtype: torch.dtype = torch.int64) -> Int[Tensor, "b m"]:
    """The columns of each row in ascending order of their values; of equal values the first column comes first.

    On the CPU in float32 value and column are packed into one integer, which numpy sorts several times as fast as torch
    sorts pairs: the value's bits into 64, or for rows of up to 1,024 a rounded value into 32, and the few rows in which
    rounding made two values equal again into 64.

    Args:
        values: Without NaN.
        dtype: Of the columns.

    Returns:
        As `values.argsort(dim=1, stable=True)`.

    Example:
        >>> order_of_rows(torch.tensor([[2.0, 1.0, 2.0, -1.0]]))
        tensor([[3, 1, 0, 2]])
    """
    if values.dtype != torch.float32 or values.device.type != "cpu":
        return values.argsort(dim=1, stable=True).to(dtype)
    short = values.shape[1] <= 1024 and values.numel() >= 2**14
    return (_order_by_rounded(values) if short else _order_by_bits(values)).to(dtype)


def _order_by_rounded(values: Tensor) -> Tensor:
    bits = max(values.shape[1] - 1, 1).bit_length()
    low, high = (float(bound) for bound in torch.aminmax(values))
    if low == -torch.inf:
        low = float(values.masked_fill(values == -torch.inf, torch.inf).amin())
    if high == torch.inf:
        high = float(values.masked_fill(values == torch.inf, -torch.inf).amax())
    top = 2 ** min(31 - bits, 24) - 1  # for infinity alone
    step = (high - low) / (top - 1)
    if not 1e-30 < step < torch.inf:
        return _order_by_bits(values)
    # monotonous: a larger value has no smaller code
    keys = (values - low).mul_(1 / step).clamp_(0, top).to(torch.int32).bitwise_left_shift_(bits)
    keys.bitwise_or_(torch.arange(values.shape[1], dtype=torch.int32))
    codes = _sort(keys) >> bits
    unclear = (codes[:, 1:] == codes[:, :-1]).logical_and_(codes[:, 1:] < top).any(dim=1)
    columns = keys.bitwise_and_(2**bits - 1)
    columns[unclear] = _order_by_bits(values[unclear]).to(torch.int32)
    return columns


def _order_by_bits(values: Tensor) -> Tensor:
    return _sort(_packed(values)).bitwise_and_(0xFFFFFFFF)


def smallest_of_rows(values: Float[Tensor, "b m"], k: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k smallest values of each row and their columns, ascending; of equal values the first columns.

    Long rows are folded to a sixteenth first: the k smallest lie in the k folds with the smallest minima. Rows in which
    the k-th value stands again beyond are sorted as a whole.

    Args:
        values: Without NaN.
        k: From 1 to m.

    Returns:
        Values and columns.

    Raises:
        ValueError: k outside 1 to m.

    Example:
        >>> smallest_of_rows(torch.tensor([[2.0, 1.0, 2.0, -1.0]]), 3)
        (tensor([[-1.,  1.,  2.]]), tensor([[3, 1, 0]]))
    """
    rows, width = values.shape
    if not 1 <= k <= width:
        raise ValueError(f"k is {k}; 1 to {width} are accepted")
    if 8 * k >= width:
        columns = order_of_rows(values)[:, :k]
        return values.gather(1, columns), columns
    fold = min(16, width // (4 * (k + 1)))
    if fold >= 4:
        folds = width // fold
        minima = values[:, : fold * folds].view(rows, fold, folds).amin(dim=1)
        chosen = minima.topk(k + 1, dim=1, largest=False, sorted=False).indices
        steps = torch.arange(fold, device=values.device) * folds
        candidates = (chosen.unsqueeze(1) + steps[:, None]).reshape(rows, -1)
        rest = torch.arange(fold * folds, width, device=values.device).expand(rows, -1)
        candidates = torch.cat([candidates, rest], dim=1)
        found, places = values.gather(1, candidates).topk(k + 1, dim=1, largest=False)
        columns = candidates.gather(1, places)
    else:
        found, columns = values.topk(k + 1, dim=1, largest=False)
    bound = found[:, k] == found[:, k - 1]
    tied = (found[:, 1:k] == found[:, : k - 1]).any(dim=1) & ~bound
    found, columns = found[:, :k].contiguous(), columns[:, :k].contiguous()
    if bool(tied.any()):
        by_column, places = columns[tied].sort(dim=1)
        order = order_of_rows(found[tied].gather(1, places))
        columns[tied] = by_column.gather(1, order)
    if bool(bound.any()):
        columns[bound] = order_of_rows(values[bound])[:, :k]
    return found, columns


def _sort(rows: Tensor) -> Tensor:
    """Sort rows in place."""
    rows.numpy().sort(axis=1)
    return rows


def _packed(values: Tensor) -> Tensor:
    """One integer a value: its bits, made monotonous, above its column."""
    bits = (values + 0.0).contiguous().view(torch.int32)  # -0.0 is 0.0
    monotonous = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    columns = torch.arange(values.shape[1], dtype=torch.int64)
    return monotonous.to(torch.int64).bitwise_left_shift_(32).bitwise_or_(columns)


def sorted_rows(values: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Each row in ascending order; the argument may be overwritten.

    Args:
        values: Without NaN.

    Returns:
        The values of each row.

    Example:
        >>> sorted_rows(torch.tensor([[2.0, 1.0, 3.0]]))
        tensor([[1., 2., 3.]])
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.sort(dim=1).values
    return _sort(values.contiguous())


def kth_smallest(values: Float[Tensor, " n"], k: int) -> Float[Tensor, ""]:
    """The k-th smallest of some values, counted from 1.

    Args:
        values: Without NaN.
        k: From 1 to n.

    Returns:
        A scalar.

    Example:
        >>> kth_smallest(torch.tensor([3.0, 1.0, 2.0]), 2)
        tensor(2.)
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.kthvalue(k).values
    return torch.from_numpy(np.partition(values.numpy(), k - 1)[k - 1 : k]).squeeze(0)
