"""The layers of domain-specific batch norm (DSBN, arXiv:1906.03950, section 3): a branch of its own for each domain."""

from __future__ import annotations

import copy
from abc import ABC
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.ops.collective import process_count, sum_over_processes


class DomainGroups(NamedTuple):
    """A batch of several domains: which images belong together.

    Args:
        order: Places of the images, sorted by domain.
        inverse: Brings sorted images back to their places.
        sizes: Images of each domain.
        present: The domains that are here, or in any process where statistics are joined.
    """

    order: Int[Tensor, " b"]
    inverse: Int[Tensor, " b"]
    sizes: list[int]
    present: list[int]


def single_domain(domains: Int[Tensor, " b"]) -> int:
    """The one domain of a batch, as the int that the layers want.

    Args:
        domains: One domain an image.

    Returns:
        The domain.

    Raises:
        ValueError: None, or more than one.

    Example:
        >>> single_domain(torch.tensor([1, 1, 1]))
        1
    """
    present = domains.unique().tolist()
    if len(present) != 1:
        raise ValueError(f"the batch has domains {present}; one domain is asked for")
    return int(present[0])


def group_domains(domain: int | Int[Tensor, " b"], num_domains: int, *, joined: bool = False) -> int | DomainGroups:
    """Check a domain, or group a batch by domains; costs one wait for the device where it is a tensor.

    Args:
        domain: An int, or one domain an image.
        num_domains: Domains that there are.
        joined: Whether other processes hold images of this batch too.

    Returns:
        The int where the batch has one domain alone, else the groups.

    Raises:
        ValueError: A domain outside [0, num_domains), or a tensor that is not one integer an image.

    Example:
        >>> group_domains(torch.tensor([1, 0, 1]), 2).sizes
        [1, 2]
    """
    if not isinstance(domain, Tensor):
        if not 0 <= domain < num_domains:
            raise ValueError(f"domain is {domain}; the layer has {num_domains} domains, 0 to {num_domains - 1}")
        return int(domain)
    if domain.dim() != 1 or not len(domain) or domain.is_floating_point() or domain.is_complex():
        raise ValueError(
            f"domain is a tensor {tuple(domain.shape)} of {domain.dtype}; an int, or one integer an image, is accepted"
        )
    low, high = int(domain.min()), int(domain.max())
    if low < 0 or high >= num_domains:
        raise ValueError(f"domains go from {low} to {high}; the layer has {num_domains}, 0 to {num_domains - 1}")
    if low == high and not joined:
        return low
    counts = torch.bincount(domain, minlength=num_domains)
    everywhere = sum_over_processes(counts.double()) if joined else counts
    order = domain.argsort(stable=True)
    present = [d for d, count in enumerate(everywhere.tolist()) if count]
    return DomainGroups(order, order.argsort(), counts.tolist(), present)


class _Permute(Function):
    """Images in another order; the gradient goes back by the inverse order, where indexing would add up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        order, inverse = ctx.saved_tensors
        return _Permute.apply(grads[0], inverse, order), None, None


class DomainSpecificBatchNorm(nn.Module, ABC):
    """What the layers for one, two and three dimensions share. A branch is a plain batch norm, under `bns.D`.

    Args:
        num_features: Channels.
        num_domains: Branches.
        eps: Added to the variance.
        momentum: Share of the batch in the running statistics; `None`: their plain mean.
        affine: Whether branches have weight and bias.
        track_running_stats: Whether branches keep running statistics.
        sync: Whether the batch statistics of a domain are taken over all processes, see `saccade.adaptation.dsbn`.

    Attributes:
        domain: The branch that runs where `forward` is told none; set by `use_domain`.

    Raises:
        ValueError: Fewer than one channel or domain.
    """

    kind: ClassVar[type[_BatchNorm]]
    ranks: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        sync: bool = False,
    ) -> None:
        super().__init__()
        if not hasattr(self, "kind"):
            raise TypeError(f"{type(self).__name__} has no dimension: use DomainSpecificBatchNorm1d, 2d or 3d")
        if num_features < 1 or num_domains < 1:
            raise ValueError(f"num_features is {num_features}, num_domains {num_domains}; at least 1 is accepted")
        self.num_features = num_features
        self.num_domains = num_domains
        self.sync = sync
        self.domain: int | DomainGroups | None = None
        self.bns = nn.ModuleList(
            self.kind(num_features, eps, momentum, affine, track_running_stats) for _ in range(num_domains)
        )

    @classmethod
    def from_batch_norm(cls, norm: _BatchNorm, num_domains: int, *, sync: bool = False) -> DomainSpecificBatchNorm:
        """A layer whose every branch is a copy of a batch norm: weight, bias, statistics, counter.

        Args:
            norm: Also of a class that derives from `kind`; branches are of the same class.
            num_domains: Branches.
            sync: As in the constructor.

        Returns:
            The layer, in the same mode, on the same device.

        Raises:
            ValueError: `sync` for a class with a forward of its own.
        """
        if sync and type(norm).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
            raise ValueError(
                f"{type(norm).__name__} has a forward of its own, which statistics over all processes would skip; "
                "sync is accepted for torch's own batch norms"
            )
        layer = cls(norm.num_features, num_domains, affine=False, track_running_stats=False, sync=sync)
        layer.bns = nn.ModuleList(copy.deepcopy(norm) for _ in range(num_domains))
        return layer.train(norm.training)

    def extra_repr(self) -> str:
        """Channels, domains, and whether statistics are joined."""
        return f"{self.num_features}, num_domains={self.num_domains}{', sync=True' if self.sync else ''}"

    @property
    def joined(self) -> bool:
        """Whether batch statistics are those of several processes now."""
        return (self.sync or isinstance(self.bns[0], nn.SyncBatchNorm)) and self.training and process_count() > 1

    def forward(
        self, x: Float[Tensor, "b c *s"], domain: int | Int[Tensor, " b"] | DomainGroups | None = None
    ) -> Float[Tensor, "b c *s"]:
        """Normalise by the statistics of a domain.

        Args:
            x: Images or features.
            domain: The branch; or one an image, which splits the batch; `None`: as `use_domain` says.

        Returns:
            The same shape.

        Raises:
            ValueError: No domain, one that is not there, another number of dimensions or channels, an empty batch, or
                in training a domain with a single value a channel.
        """
        if x.dim() not in self.ranks or x.shape[1] != self.num_features:
            wanted = " or ".join(str(rank) for rank in self.ranks)
            raise ValueError(
                f"x is {tuple(x.shape)}; {wanted} dimensions with {self.num_features} channels are accepted"
            )
        if domain is None:
            domain = self.domain
            if domain is None:
                raise ValueError("no domain is given: call model(x, domain=d), or run inside use_domain(model, d)")
        elif not isinstance(domain, DomainGroups):
            domain = group_domains(domain, self.num_domains, joined=self.joined)
        if isinstance(domain, DomainGroups):
            return self._by_groups(x, domain)
        return self._branch(x, domain)

    def _by_groups(self, x: Tensor, groups: DomainGroups) -> Tensor:
        if len(groups.order) != len(x):
            raise ValueError(f"domain names {len(groups.order)} images and x has {len(x)}")
        parts = _Permute.apply(x, groups.order, groups.inverse).split(groups.sizes)
        normalised = [self._branch(parts[d], d) for d in groups.present]
        return _Permute.apply(torch.cat(normalised), groups.inverse, groups.order)

    def _branch(self, x: Tensor, domain: int) -> Tensor:
        norm = cast(_BatchNorm, self.bns[domain])
        joined = self.joined
        if len(x) == 0 and self.training and not joined:
            raise ValueError(f"the batch of domain {domain} is empty; at least one image is accepted")
        if joined and not (isinstance(norm, nn.SyncBatchNorm) and x.is_cuda):
            return joined_batch_norm(x, norm)
        return norm(x)


class DomainSpecificBatchNorm1d(DomainSpecificBatchNorm):
    """Domain-specific batch norm of (b, c) or (b, c, n), see `DomainSpecificBatchNorm`; or DomainBatchNorm1d.

    Example:
        >>> layer = DomainSpecificBatchNorm1d(3, num_domains=2)
        >>> layer(torch.randn(4, 3), domain=1).shape
        torch.Size([4, 3])
    """

    kind = nn.BatchNorm1d
    ranks = (2, 3)


class DomainSpecificBatchNorm2d(DomainSpecificBatchNorm):
    """Domain-specific batch norm of (b, c, h, w), see `DomainSpecificBatchNorm`; or DomainBatchNorm2d.

    Example:
        >>> layer = DomainSpecificBatchNorm2d(3, num_domains=2)
        >>> layer(torch.randn(4, 3, 5, 5), torch.tensor([0, 1, 1, 0])).shape
        torch.Size([4, 3, 5, 5])
    """

    kind = nn.BatchNorm2d
    ranks = (4,)


class DomainSpecificBatchNorm3d(DomainSpecificBatchNorm):
    """Domain-specific batch norm of (b, c, t, h, w), see `DomainSpecificBatchNorm`; or DomainBatchNorm3d.

    Example:
        >>> layer = DomainSpecificBatchNorm3d(3, num_domains=2)
        >>> layer(torch.randn(4, 3, 2, 5, 5), domain=0).shape
        torch.Size([4, 3, 2, 5, 5])
    """

    kind = nn.BatchNorm3d
    ranks = (5,)


class DomainSpecificSyncBatchNorm(DomainSpecificBatchNorm):
    """Domain-specific batch norm in the place of a SyncBatchNorm, which takes any number of dimensions."""

    kind = nn.SyncBatchNorm
    ranks = (2, 3, 4, 5)


DomainBatchNorm1d = DomainSpecificBatchNorm1d
"""Another name of `DomainSpecificBatchNorm1d`."""
DomainBatchNorm2d = DomainSpecificBatchNorm2d
"""Another name of `DomainSpecificBatchNorm2d`."""
DomainBatchNorm3d = DomainSpecificBatchNorm3d
"""Another name of `DomainSpecificBatchNorm3d`."""


def joined_batch_norm(x: Float[Tensor, "b c *s"], norm: _BatchNorm) -> Float[Tensor, "b c *s"]:
    """Batch norm in training by the statistics of all processes' samples, on any device; gradients flow through them.

    Args:
        x: This process's samples; their number may differ between processes, and be 0.
        norm: Weight, bias and running statistics, which are updated.

    Returns:
        Normalised samples.

    Raises:
        ValueError: All processes together have a single value a channel.
    """
    dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    values = x.numel() // x.shape[1]
    sums = sum_over_processes(torch.cat([wide.sum(dims), wide.new_tensor([values])]))
    count = sums[-1].detach()
    if values <= 1 and int(count) <= 1:
        raise ValueError(f"expected more than 1 value a channel when training, all processes together have {count:g}")
    mean = sums[:-1] / count
    centred = wide - mean.view(shape)
    # from the deviations: the mean of squares less the squared mean would cancel
    variance = sum_over_processes(centred.square().sum(dims)) / count
    if norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            counter = cast(Tensor, norm.num_batches_tracked).add_(1)
            share = 1.0 / counter if norm.momentum is None else norm.momentum
            norm.running_mean.copy_((1 - share) * norm.running_mean + share * mean)
            norm.running_var.copy_((1 - share) * norm.running_var + share * variance * count / (count - 1))
    out = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        out = out * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(x.dtype)
