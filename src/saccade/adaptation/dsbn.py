"""Domain-specific batch normalisation: a batch norm with one branch a domain, everything else shared.

What two looks of the same things differ in is for a good part their statistics. Domain-specific batch normalisation
(DSBN, arXiv:1906.03950) gives every domain its own branch of each batch norm, with its own weight, bias and running
statistics, while convolutions and linear layers are shared: style goes into the branches, content into the weights.

    DSBN_d(x) = weight_d (x - mean_d) / sqrt(var_d + eps) + bias_d

How it is used: [`convert_dsbn`][saccade.adaptation.dsbn.convert_dsbn] turns the batch norms of any network into DSBN,
`model(images, domain=d)` or [`use_domain`][saccade.adaptation.dsbn.use_domain] says which branch runs, and
[`merge_domain`][saccade.adaptation.dsbn.merge_domain] gives a plain network of one domain for deployment. Training goes
in two stages: [`DSBNStage1`][saccade.adaptation.dsbn_stages.DSBNStage1] aligns the domains with MSTN or CPUA, and
[`DSBNStage2`][saccade.adaptation.dsbn_stages.DSBNStage2] teaches a fresh network the pseudo labels of the first.

A domain is a Python int: naming it by a tensor makes host and device wait for each other. A tensor with one domain an
image is accepted too; the batch is then split, normalised by groups and put back. Under `torch.compile` give an int:
each domain compiles once in each mode; raise `torch._dynamo.config.recompile_limit` (8) where that is more.

Several processes. By default each process normalises by its own batch, as plain batch norm does. With `sync=True` the
statistics of a domain are those of its samples in all processes, on the CPU too (torch's `SyncBatchNorm` knows CUDA
alone); processes may hold different numbers of samples, or none of a domain in a mixed batch, but have to call the
layers in the same order with the same int. `Trainer(sync_batchnorm=True)`, which turns the branches into
`SyncBatchNorm`, means the same, and runs torch's fused kernels on CUDA.
"""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.ops.collective import process_count, sum_over_processes
from saccade.surgery import find_layers, map_modules


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


Domain = int | Tensor | DomainGroups


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


class DomainSpecificBatchNorm(nn.Module, ABC):
    """What the layers for one, two and three dimensions share. A branch is a plain batch norm, under `bns.D`.

    Args:
        num_features: Channels.
        num_domains: Branches.
        eps: Added to the variance.
        momentum: Share of the batch in the running statistics; `None`: their plain mean.
        affine: Whether branches have weight and bias.
        track_running_stats: Whether branches keep running statistics.
        sync: Whether the batch statistics of a domain are taken over all processes; see the head of the module.

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
        parts = x[groups.order].split(groups.sizes)
        normalised = [self._branch(parts[d], d) for d in groups.present]
        return torch.cat(normalised)[groups.inverse]

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


class _SyncedLayer(DomainSpecificBatchNorm):
    """In the place of a SyncBatchNorm, which takes any number of dimensions."""

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


def dsbn_layers(model: nn.Module) -> list[DomainSpecificBatchNorm]:
    """All domain-specific batch norms of a network, each once."""
    return [module for module in model.modules() if isinstance(module, DomainSpecificBatchNorm)]


class use_domain:  # noqa: N801  (a context, named as what it does)
    """Inside, the network runs with the branches of a domain; also known as `set_domain`. Contexts nest.

    Args:
        model: With domain-specific batch norms.
        domain: An int, or one integer an image.

    Raises:
        ValueError: The network has no domain-specific batch norm, or not that domain.

    Example:
        >>> model = convert_dsbn(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), num_domains=2)
        >>> with use_domain(model, 1):
        ...     model(torch.randn(4, 2)).shape
        torch.Size([4, 3])
    """

    def __init__(self, model: nn.Module, domain: int | Int[Tensor, " b"]) -> None:
        self._layers = dsbn_layers(model)
        if not self._layers:
            raise ValueError(f"{type(model).__name__} has no domain-specific batch norm: convert_dsbn makes them")
        first = self._layers[0]
        self._domain = group_domains(domain, first.num_domains, joined=first.joined)
        self._before: list[int | DomainGroups | None] = []

    def __enter__(self) -> None:
        self._before = [layer.domain for layer in self._layers]
        for layer in self._layers:
            layer.domain = self._domain

    def __exit__(self, *_: object) -> None:
        for layer, domain in zip(self._layers, self._before, strict=True):
            layer.domain = domain


set_domain = use_domain
"""Another name of `use_domain`."""


def _take_domain(module: Any, args: Any, kwargs: Any) -> Any:
    """Before the network runs: take `domain` out of the arguments and choose the branches."""
    domain = kwargs.get("domain")
    context = None if domain is None else use_domain(module, domain)
    if context is not None:
        context.__enter__()
    module._domains.append(context)
    return args, {name: value for name, value in kwargs.items() if name != "domain"}


def _leave_domain(module: Any, args: Any, output: Any) -> None:
    """After it ran, or failed."""
    context = module._domains.pop() if module._domains else None
    if context is not None:
        context.__exit__()


_LAYERS: Sequence[type[DomainSpecificBatchNorm]] = (
    DomainSpecificBatchNorm1d,
    DomainSpecificBatchNorm2d,
    DomainSpecificBatchNorm3d,
    _SyncedLayer,
)


def convert_dsbn(module: nn.Module, num_domains: int, *, sync: bool = False) -> nn.Module:
    """Replace every batch norm of a network by a domain-specific one; also known as `convert_batchnorm`.

    Each branch starts as a copy. The network is changed in place, and from then on takes `domain=` besides its own
    arguments: an int, or one integer an image. Where the module is itself a batch norm, the new layer is returned.

    Args:
        module: Any network; batch norms of classes that derive from torch's, as timm's with an activation, keep them.
        num_domains: Sources and targets together; sources come first.
        sync: Whether statistics are taken over all processes.

    Returns:
        The module.

    Raises:
        ValueError: No batch norm, one that is domain-specific already or whose kind is not known, fewer than 1 domain.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = convert_dsbn(resnet18(weights=None), num_domains=2)
        >>> model(torch.randn(2, 3, 32, 32), domain=1).shape
        torch.Size([2, 1000])
        >>> "layer1.0.bn1.bns.1.running_mean" in model.state_dict()
        True
    """
    if num_domains < 1:
        raise ValueError(f"num_domains is {num_domains}; at least 1 is accepted")
    if dsbn_layers(module):
        raise ValueError(f"{type(module).__name__} has domain-specific batch norms already")

    def change(name: str, norm: nn.Module) -> nn.Module:
        if isinstance(norm, nn.modules.lazy.LazyModuleMixin):
            raise ValueError(f"{name} does not know its channels yet: run the network once before")
        for layer in _LAYERS:
            if isinstance(norm, layer.kind):
                return layer.from_batch_norm(norm, num_domains, sync=sync)
        raise ValueError(f"{name} is a {type(norm).__name__}; BatchNorm1d, 2d, 3d and SyncBatchNorm are accepted")

    if isinstance(module, _BatchNorm):
        return change("the module", module)
    if not find_layers(module, _BatchNorm):
        raise ValueError(f"{type(module).__name__} has no batch norm to replace")
    map_modules(module, _BatchNorm, change)
    module._domains = []  # type: ignore[assignment]
    module.register_forward_pre_hook(_take_domain, with_kwargs=True)
    module.register_forward_hook(_leave_domain, always_call=True)
    return module


convert_batchnorm = convert_dsbn
"""Another name of `convert_dsbn`."""


def merge_domain(module: nn.Module, domain: int) -> nn.Module:
    """A plain network that runs the branch of one domain, for deployment: same outputs to the bit, no detour.

    Args:
        module: With domain-specific batch norms; stays as it is.
        domain: The branch to keep; of S sources and T targets the first target is S.

    Returns:
        A copy with plain batch norms and the names that it had before `convert_dsbn`.

    Raises:
        ValueError: No domain-specific batch norm, or no such domain.

    Example:
        >>> model = convert_dsbn(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), num_domains=2)
        >>> type(merge_domain(model, 1)[1]).__name__
        'BatchNorm1d'
    """
    layers = dsbn_layers(module)
    if not layers:
        raise ValueError(f"{type(module).__name__} has no domain-specific batch norm to merge")
    for layer in layers:
        group_domains(domain, layer.num_domains)
    merged = copy.deepcopy(module)
    if isinstance(merged, DomainSpecificBatchNorm):
        return _plain(merged, domain)
    map_modules(merged, DomainSpecificBatchNorm, lambda _, layer: _plain(cast(DomainSpecificBatchNorm, layer), domain))
    for part in merged.modules():
        if part.__dict__.pop("_domains", None) is not None:
            for hooks, ours in ((part._forward_pre_hooks, _take_domain), (part._forward_hooks, _leave_domain)):
                number = next(number for number, hook in hooks.items() if hook is ours)
                for table in (hooks, part._forward_pre_hooks_with_kwargs, part._forward_hooks_always_called):
                    table.pop(number, None)  # type: ignore[attr-defined]
    return merged


def _plain(layer: DomainSpecificBatchNorm, domain: int) -> nn.Module:
    norm = cast(_BatchNorm, layer.bns[domain])
    if isinstance(norm, layer.kind):
        return norm  # else a conversion for several processes has put another class in its place
    plain = layer.kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for parts in (plain._parameters, plain._buffers):
        for name in parts:
            parts[name] = getattr(norm, name)
    return plain.train(norm.training)
