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
`SyncBatchNorm`, means the same and runs torch's fused kernels on CUDA; on the CPU torch's `DistributedDataParallel`
refuses such layers.
"""

from __future__ import annotations

import copy
from typing import Any, cast

from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.adaptation.domain_batch_norm import (
    DomainBatchNorm1d,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
    DomainGroups,
    DomainSpecificBatchNorm,
    DomainSpecificBatchNorm1d,
    DomainSpecificBatchNorm2d,
    DomainSpecificBatchNorm3d,
    DomainSpecificSyncBatchNorm,
    group_domains,
    single_domain,
)
from saccade.surgery import find_layers, map_modules

__all__ = [
    "DomainBatchNorm1d",
    "DomainBatchNorm2d",
    "DomainBatchNorm3d",
    "DomainSpecificBatchNorm",
    "DomainSpecificBatchNorm1d",
    "DomainSpecificBatchNorm2d",
    "DomainSpecificBatchNorm3d",
    "convert_batchnorm",
    "convert_dsbn",
    "dsbn_layers",
    "merge_domain",
    "set_domain",
    "single_domain",
    "use_domain",
]


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
        >>> import torch
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


_LAYERS: tuple[type[DomainSpecificBatchNorm], ...] = (
    DomainSpecificBatchNorm1d,
    DomainSpecificBatchNorm2d,
    DomainSpecificBatchNorm3d,
    DomainSpecificSyncBatchNorm,
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
        >>> import torch
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
                    table.pop(number, None)
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
