"""How the weight of the adversary grows and the learning rate falls in domain-adversarial training."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def adaptation_factor(p: float, gamma: float = 10.0) -> float:
    """The weight of the adversary at progress p, 2 / (1 + exp(-gamma p)) - 1 (DANN, arXiv:1505.07818, section 5.2.2).

    Args:
        p: Progress; below 0 (warm-up) it counts as 0, above 1 as 1.
        gamma: How fast it grows.

    Returns:
        In [0, 1).

    Example:
        >>> adaptation_factor(-0.5), round(adaptation_factor(0.1), 4)
        (0.0, 0.4621)
    """
    # tanh(gamma p / 2) is the same, and exact at 0
    return math.tanh(0.5 * gamma * min(max(p, 0.0), 1.0))


def inverse_decay_lr(step: float, init_lr: float, gamma: float = 1e-4, power: float = 0.75) -> float:
    """init_lr (1 + gamma step)^-power.

    Args:
        step: Iterations since the decay began; below 0 it counts as 0.
        init_lr: Rate at step 0.
        gamma: Decay a step; DSBN: 10 / 70000.
        power: Its exponent.

    Returns:
        The learning rate.

    Example:
        >>> inverse_decay_lr(0, 0.01)
        0.01
    """
    return init_lr * (1.0 + gamma * max(step, 0.0)) ** -power


class InverseDecayLR(LambdaLR):
    """The schedule of `inverse_decay_lr`, a step an iteration, after a warm-up at a constant rate.

    Args:
        optimizer: Its groups' rates are those at the start of the decay.
        gamma: Decay a step.
        power: Its exponent.
        warmup: Iterations before the decay.
        warmup_factor: Rate during the warm-up, as a factor (DSBN: 0.5).

    Example:
        >>> import torch
        >>> schedule = InverseDecayLR(torch.optim.SGD([torch.zeros(1)], lr=1.0), warmup=1, warmup_factor=0.5)
        >>> schedule.get_last_lr()
        [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        gamma: float = 1e-4,
        power: float = 0.75,
        warmup: int = 0,
        warmup_factor: float = 1.0,
    ) -> None:
        def factor(step: int) -> float:
            return warmup_factor if step < warmup else inverse_decay_lr(step - warmup, 1.0, gamma, power)

        super().__init__(optimizer, factor)
