r"""Deep k-Means: re-training that pulls the rows of filters into clusters, so that sharing them costs little accuracy.

A trained convolution has thousands of 1 x s' rows. If K centroids stand for them, the layer is stored as K rows and one
small index for each; but clustering the rows of an ordinary network tears its accuracy down. Deep k-Means re-trains the
network first, with a regulariser that is the sum of squares of k-means itself:

    L(W) = E(W) + (lam / 2) sum over layers [ Tr(W^T W) - Tr(F^T W^T W F) ],

with the rows as the columns of W (d x N) and F (N x K) the normalised indicator of the assignment. The assignment is
refreshed once an epoch, and the gradient lam (W - W F F^T) pulls each row to the mean of its cluster. In the end the
rows lie in K tight groups ("harder assignments"), and clustering moves hardly anything.

What relaxing F does. The paper lets F be any orthonormal matrix; the best one holds the K leading right singular
vectors of W, and the bracket becomes the sum of the squared singular values beyond the K-th. Rows of length s' make W
a matrix of rank s' at most: from K = s' on, 3 for a 3 x 3 filter, the relaxed term is exactly 0 and does nothing. It
has a meaning for long samples such as whole filters. Hence `relaxation="hard"` is the default here: F stays the
indicator of a k-means of the rows, which is the discrete problem that the relaxation stands for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.efficiency.rows import LayerSetting, Unit, cluster_rows, layer_seed, layer_settings, rows_of

Relaxation = Literal["hard", "spectral"]


class KMeansRegularizer:
    """k-means as a regulariser of a network's convolutions: `update()` once an epoch, `loss()` in every step.

    Args:
        model: The network that is trained; its weights are read anew at each call.
        clusters: K of every layer, or of those that are named.
        lam: Strength, 0 or more; it may be changed between steps (a ramp, say).
        relaxation: `hard`: rows are pulled to the centroids of a k-means, started from the last ones. `spectral`: the
            paper's relaxation, the part of the samples beyond K singular directions is pulled to 0.
        unit: `row`: samples are the 1 x s' rows of filters; `filter`: whole filters.
        layers: Names of the convolutions; all of them where `None`.
        core_ratio: Share of the rows in the dense core of each layer, as in `cluster_weights`; `hard` alone.
        iters: Lloyd iterations of an update at most.
        seed: Of k-means++.

    Raises:
        ValueError: A negative or infinite lam, an unknown relaxation or unit, and all of `layer_settings`.

    Warns:
        UserWarning: With `spectral`, for layers whose samples have no more than K singular directions: there the term
            is 0.

    Source:
        arXiv:1806.09228, section 3.1. Restrictions on F and when to refresh it: see the module's text.

    Example:
        >>> conv = nn.Conv2d(4, 10, 3)
        >>> regularizer = KMeansRegularizer(nn.Sequential(conv), 4, lam=0.7, relaxation="spectral", unit="filter")
        >>> tail = torch.linalg.svdvals(conv.weight.flatten(1))[4:]
        >>> torch.testing.assert_close(regularizer.loss(), 0.35 * tail.square().sum())
    """

    def __init__(
        self,
        model: nn.Module,
        clusters: int | Mapping[str, int],
        lam: float = 0.5,
        relaxation: Relaxation = "hard",
        unit: Unit = "row",
        layers: Sequence[str] | None = None,
        *,
        core_ratio: float | Mapping[str, float] = 0.0,
        iters: int = 100,
        seed: int = 0,
    ) -> None:
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam has to be finite and not negative, not {lam}")
        if relaxation not in ("hard", "spectral"):
            raise ValueError(f"relaxation is 'hard' or 'spectral', not {relaxation!r}")
        if unit not in ("row", "filter"):
            raise ValueError(f"unit is 'row' or 'filter', not {unit!r}")
        if relaxation == "spectral" and (
            core_ratio if not isinstance(core_ratio, Mapping) else any(core_ratio.values())
        ):
            raise ValueError("the spectral relaxation has no assignment, and so no dense core: core_ratio has to be 0")
        self.lam, self.relaxation, self.unit = lam, relaxation, unit
        self.iters, self.seed = iters, seed
        self.settings: dict[str, LayerSetting] = layer_settings(model, clusters, core_ratio, layers, unit)
        self.state: dict[str, Tensor] = {}
        self._warned: set[str] = set()
        self.update()

    @property
    def clusters(self) -> dict[str, int]:
        """K of each layer."""
        return {name: setting.clusters for name, setting in self.settings.items()}

    @property
    def centroids(self) -> dict[str, Tensor]:
        """(K, d) of each layer, with `hard`."""
        return {name: self.state[f"{name}/centroids"] for name in self.settings if f"{name}/centroids" in self.state}

    @property
    def labels(self) -> dict[str, Tensor]:
        """(N,) of each layer, with `hard`."""
        return {name: self.state[f"{name}/labels"] for name in self.settings if f"{name}/labels" in self.state}

    @torch.no_grad()
    def update(self) -> None:
        """Refresh F: a k-means of the current samples, or their singular directions.

        Raises:
            ValueError: Weights that are not finite; the message names the layer.
        """
        for index, (name, setting) in enumerate(self.settings.items()):
            samples = self._samples(setting).detach()
            if not bool(torch.isfinite(samples).all()):
                raise ValueError(f"layer {name!r} has weights that are not finite")
            if self.relaxation == "hard":
                last = self.state.get(f"{name}/centroids")
                found = cluster_rows(
                    samples, setting.clusters, setting.core_ratio, init=None if last is None else last.to(samples),
                    iters=self.iters, n_init=1, seed=layer_seed(self.seed, index),
                )  # fmt: skip
                self.state[f"{name}/centroids"], self.state[f"{name}/labels"] = found.centroids, found.labels
            else:
                self._refresh_basis(name, samples, setting.clusters)

    def set_labels(self, name: str, labels: Tensor) -> None:
        """Take an assignment from elsewhere; the centroids become the means of its clusters.

        Args:
            name: The layer.
            labels: (N,), 0 to K - 1.

        Raises:
            ValueError: Another number of labels, or labels outside of that.
        """
        samples = self._samples(self.settings[name]).detach()
        k = self.settings[name].clusters
        if labels.shape != samples.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= k:
            raise ValueError(f"layer {name!r}: {len(samples)} labels from 0 to {k - 1} are wanted")
        sums = samples.new_zeros(k, samples.shape[1]).index_add_(0, labels, samples)
        counts = torch.bincount(labels, minlength=k).clamp(min=1)[:, None]
        self.state[f"{name}/centroids"], self.state[f"{name}/labels"] = sums / counts, labels

    def loss(self) -> Float[Tensor, ""]:
        """(lam / 2) times the sum over layers, with F as the last update left it; differentiable in the weights."""
        terms = [self.term(name) for name in self.settings]
        return self.lam / 2 * torch.stack(terms).sum()

    def term(self, name: str) -> Float[Tensor, ""]:
        """Tr(W^T W) - Tr(F^T W^T W F) of one layer: the squared distance of its samples to what F makes of them.

        Args:
            name: The layer.

        Returns:
            A scalar in the type of the weight.
        """
        samples = self._samples(self.settings[name])
        with torch.autocast(samples.device.type, enabled=False):
            if self.relaxation == "hard":
                centroids, labels = (
                    self.state[f"{name}/{what}"].to(samples.device) for what in ("centroids", "labels")
                )
                return (samples - centroids.to(samples.dtype)[labels]).square().sum()
            if f"{name}/left" in self.state:
                basis = self.state[f"{name}/left"].to(samples)
                return (samples - (samples @ basis) @ basis.T).square().sum()
            if f"{name}/right" in self.state:
                basis = self.state[f"{name}/right"].to(samples)
                return (samples - basis @ (basis.T @ samples)).square().sum()
            return samples.new_zeros(())  # no direction is left

    @torch.no_grad()
    def projector(self, name: str) -> Float[Tensor, "n n"]:
        """F F^T of the last update, with `spectral`: what multiplies the samples, W F F^T. To look at; never needed.

        Args:
            name: The layer.

        Raises:
            ValueError: The `hard` relaxation, or a layer without a direction left over.
        """
        samples = self._samples(self.settings[name])
        if f"{name}/right" in self.state:
            return self.state[f"{name}/right"] @ self.state[f"{name}/right"].T
        if f"{name}/left" not in self.state:
            raise ValueError(f"layer {name!r} has no singular directions that were left out")
        scores = samples @ self.state[f"{name}/left"]
        return scores / scores.square().sum(0) @ scores.T

    @torch.no_grad()
    def tail(self, name: str) -> Float[Tensor, " r"]:
        """Singular values of the samples beyond the K-th, in falling order: the sum of their squares is the term."""
        return torch.linalg.svdvals(self._samples(self.settings[name]))[self.settings[name].clusters :]

    def relative_errors(self) -> dict[str, float]:
        """Of each layer: squared distance to what F makes of the samples, over that to their mean; 0: hard clusters."""
        with torch.no_grad():
            spread = {
                name: float((x - x.mean(0)).square().sum())
                for name, x in ((name, self._samples(setting)) for name, setting in self.settings.items())
            }
            return {name: float(self.term(name)) / spread[name] if spread[name] else 0.0 for name in self.settings}

    def state_dict(self) -> dict[str, Tensor]:
        """Assignments and centroids, or directions: what a resumed run needs."""
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there.

        Raises:
            ValueError: The state of other layers.
        """
        strange = {key.rpartition("/")[0] for key in state} - set(self.settings)
        if strange:
            raise ValueError(f"the state is of other layers: {', '.join(sorted(strange)[:4])}")
        self.state = dict(state)

    def _samples(self, setting: LayerSetting) -> Tensor:
        return rows_of(setting.conv.weight, self.unit)  # type: ignore[arg-type]

    def _refresh_basis(self, name: str, samples: Tensor, k: int) -> None:
        """The K leading directions on the smaller side; F (N x K) is never built where N is the larger."""
        self.state.pop(f"{name}/left", None)
        self.state.pop(f"{name}/right", None)
        count, width = samples.shape
        side = "left" if width <= count else "right"
        wide = samples.double()
        values, vectors = torch.linalg.eigh(wide.T @ wide if side == "left" else wide @ wide.T)
        rounding = float(values.max()) * max(count, width) * torch.finfo(torch.float64).eps
        rank = int((values > rounding).sum())
        if k < rank:
            self.state[f"{name}/{side}"] = vectors[:, -k:].to(samples.dtype)
        elif name not in self._warned:
            self._warned.add(name)
            warnings.warn(
                f"layer {name!r}: its {count} samples of length {width} have {rank} singular directions, so that the "
                f"spectral relaxation with K = {k} is 0 and does nothing; take fewer clusters, unit='filter', or "
                "relaxation='hard'",
                stacklevel=5,
            )
