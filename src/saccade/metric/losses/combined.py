"""Several losses as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from saccade.metric.inputs import ArgumentError
from saccade.metric.tuples import IndicesTuple


class MultipleLosses(nn.Module):
    """The weighted sum of several losses, each with its own miner.

    Args:
        losses: A list, or a dictionary by name.
        miners: As many, `None` where a loss has none; or a dictionary for some of the names.
        weights: As many, or for all of the names; 1 where `None`.

    Raises:
        ValueError: Miners or weights that do not fit the losses, or a tuple where there are miners.

    Example:
        >>> import torch
        >>> from saccade.metric.losses import ContrastiveLoss, TripletMarginLoss
        >>> both = MultipleLosses([ContrastiveLoss(), TripletMarginLoss()], weights=[1, 0.5])
        >>> both(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(
        self,
        losses: Sequence[nn.Module] | Mapping[str, nn.Module],
        miners: Sequence[nn.Module | None] | Mapping[str, nn.Module] | None = None,
        weights: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.is_dict = isinstance(losses, Mapping)
        self.losses = nn.ModuleDict(losses) if isinstance(losses, Mapping) else nn.ModuleList(losses)
        names = set(losses) if isinstance(losses, Mapping) else set(range(len(losses)))
        for name, given, complete in (("miners", miners, not self.is_dict), ("weights", weights, True)):
            if given is None:
                continue
            if isinstance(given, Mapping) != self.is_dict:
                kind = "a dictionary" if self.is_dict else "a list"
                raise ArgumentError(f"{name} are a {type(given).__name__}; losses are {kind}, and so are they")
            found = set(given) if isinstance(given, Mapping) else set(range(len(given)))
            if not found <= names or (complete and found != names):
                raise ArgumentError(f"{name} are for {sorted(found)}; losses are {sorted(names)}")
        self.miners: nn.Module | None = None
        if miners is not None:
            self.miners = nn.ModuleDict(miners) if isinstance(miners, Mapping) else nn.ModuleList(miners)  # type: ignore[arg-type]
        self.weights = weights if weights is not None else dict.fromkeys(names, 1)

    def forward(
        self, embeddings: Float[Tensor, "b d"], labels: Shaped[Tensor, " b"], indices_tuple: IndicesTuple | None = None
    ) -> Any:
        """The weighted sum.

        Args:
            embeddings: Of the batch.
            labels: Their classes.
            indices_tuple: For all losses, where there are no miners.

        Returns:
            A scalar.
        """
        if self.miners is not None and indices_tuple is not None:
            raise ArgumentError("indices_tuple came; the miners choose the tuples")
        total: Any = 0
        named = self.losses.items() if isinstance(self.losses, nn.ModuleDict) else enumerate(self.losses)
        for name, loss in named:
            miner = self._miner(name)
            chosen = indices_tuple if miner is None else miner(embeddings, labels)
            total = total + self.weights[name] * loss(embeddings, labels, chosen)  # type: ignore[index]
        return total

    def _miner(self, name: Any) -> Any:
        if self.miners is None or (self.is_dict and name not in self.miners):  # type: ignore[operator]
            return None
        return self.miners[name]  # type: ignore[index]
