"""Sums over all processes that gradients flow through."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce


def sum_over_processes(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The sum over the processes; `x` itself in one process alone.

    Its gradient is the sum of the processes' gradients. A loss of such sums is the joined batch's in every process, and
    `DistributedDataParallel`, which takes the mean over processes, then follows its gradient exactly.

    Args:
        x: Of the same shape in every process.

    Returns:
        The sum, the same in every process.

    Example:
        >>> import torch
        >>> sum_over_processes(torch.ones(2))
        tensor([1., 1.])
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    return all_reduce(x)


def process_count() -> int:
    """Processes that train together; 1 where there is no group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def of_first_process(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The first process's tensor in all processes, `x` itself in one process alone: a random number that all share.

    Args:
        x: Of the same shape in every process; without a gradient.

    Returns:
        The first process's.

    Example:
        >>> import torch
        >>> of_first_process(torch.ones(2))
        tensor([1., 1.])
    """
    if process_count() > 1:
        distributed.broadcast(x, 0)
    return x


def mean_over_processes(x: Float[Tensor, " b"], weights: Float[Tensor, " b"] | None = None) -> Float[Tensor, ""]:
    """The mean of the rows of all processes, which may have different numbers of them.

    Args:
        x: This process's values.
        weights: 1 for the rows that count, 0 for those that do not; `None`: all count.

    Returns:
        The mean, the same in every process, 0 where no row counts; gradients flow as through `sum_over_processes`.

    Example:
        >>> import torch
        >>> mean_over_processes(torch.tensor([1.0, 3.0]))
        tensor(2.)
        >>> mean_over_processes(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0]))
        tensor(3.)
    """
    if weights is None and process_count() == 1:
        return x.mean()
    weights = torch.ones_like(x) if weights is None else weights
    total, count = sum_over_processes(torch.stack([(x * weights).sum(), weights.sum()]))
    return total / count.detach().clamp(min=1)


def softmax_over_processes(x: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Softmax over the rows of all processes together: each process gets its own rows of it.

    Args:
        x: This process's scores.

    Returns:
        Positive; the sum over all processes is 1. Gradients flow as through `sum_over_processes`.

    Example:
        >>> import torch
        >>> softmax_over_processes(torch.zeros(4))
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    if process_count() == 1:
        return x.softmax(0)
    largest = x.detach().amax()
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    powers = (x - largest).exp()
    return powers / sum_over_processes(powers.sum())
