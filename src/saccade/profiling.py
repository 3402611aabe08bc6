"""What a model costs: parameters, multiply-adds, peak memory, latency, as a whole and by module."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.bench import hardware, peak_memory


@dataclass(frozen=True)
class Latency:
    """Times of single passes in seconds.

    Attributes:
        median: Half of the passes take at most so long.
        p10: A tenth of the passes take at most so long.
        p90: Nine tenths of the passes take at most so long.
        p99: Of every hundred passes 99 take at most so long.
        runs: How many were timed.
    """

    median: float
    p10: float
    p90: float
    p99: float
    runs: int


@dataclass(frozen=True)
class ModuleCost:
    """A row of the table by module.

    Attributes:
        name: As in `named_modules`.
        kind: Its class.
        parameters: Of it and everything below.
        macs: Multiply-adds of the forward pass, of it and everything below.
        output: Shape of what it gave last; empty where that is not one tensor.
    """

    name: str
    kind: str
    parameters: int
    macs: int
    output: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """What a model costs on an input.

    Attributes:
        model: Its class.
        input: Shapes of the inputs.
        device: Where it ran, in words.
        threads: Torch's threads.
        training: Whether memory and latency are those of a forward and a backward pass.
        parameters: Numbers that are learnt or frozen, not buffers.
        trainable: Those that are learnt.
        macs: Multiply-adds of the matrix products, convolutions and attention of a forward pass of the whole input.
        training_macs: For a forward and a backward pass, counted as it runs; `None` without `training`.
        peak_bytes: The most memory beyond inputs and weights (with `training`: gradients of the weights are counted).
        latency: Times.
        modules: Costs by module, in the order of definition.
    """

    model: str
    input: list[tuple[int, ...]]
    device: str
    threads: int
    training: bool
    parameters: int
    trainable: int
    macs: int
    training_macs: int | None
    peak_bytes: int
    latency: Latency
    modules: list[ModuleCost] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """As a JSON row."""
        return asdict(self)


def profile(
    model: nn.Module,
    inputs: Sequence[Tensor],
    *,
    training: bool = False,
    depth: int = 1,
    runs: int = 10,
    warmup: int = 2,
) -> Profile:
    """Measure a model.

    Multiply-adds of convolution layers are those of the mathematics, also where a faster formulation does others;
    products and attention outside of them, and `training_macs`, are counted as they run. Norms, activations and pooling
    are not counted.

    Args:
        model: Is left as it was: mode, gradients, and with `training` also its buffers.
        inputs: On the model's device; given to it by position.
        training: Measure a forward and a backward pass (of the sum of all outputs) in training mode, instead of a
            forward pass in eval mode.
        depth: How deep the table by module goes; 0: no table.
        runs: Passes that are timed.
        warmup: Passes before them.

    Returns:
        Its costs.

    Raises:
        ValueError: No runs, a negative depth, or a model that cannot take the inputs; with `training`, one without
            anything to learn.

    Example:
        >>> costs = profile(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), [torch.zeros(3, 4)], runs=2)
        >>> costs.parameters, costs.macs, [row.macs for row in costs.modules]
        (58, 144, [96, 0, 48])
    """
    if runs < 1 or warmup < 0 or depth < 0:
        raise ValueError(f"runs has to be at least 1, warmup and depth at least 0, not {runs}, {warmup} and {depth}")
    parameters = list(model.parameters())
    if training and not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(f"{type(model).__name__} has nothing to learn: measure it without training")
    device = next((tensor.device for tensor in [*inputs, *parameters]), torch.device("cpu"))
    with _left_alone(model, training):
        with torch.no_grad():
            macs, by_module, outputs = _count(model, inputs)

        def forward() -> None:
            with torch.inference_mode():
                model(*inputs)

        def both() -> None:
            _total(model(*inputs)).backward()

        def step() -> None:
            both()
            for parameter in parameters:
                parameter.grad = None

        run = step if training else forward
        training_macs = _training_macs(model, both, parameters) if training else None
        for _ in range(warmup):
            run()
        latency = _latency(run, device, runs)
        peak = peak_memory(run)
    rows = [
        ModuleCost(
            name,
            type(module).__name__,
            sum(p.numel() for p in module.parameters()),
            by_module.get(name, 0),
            outputs.get(name, ()),
        )
        for name, module in model.named_modules()
        if name and name.count(".") < depth
    ]
    return Profile(
        model=type(model).__name__,
        input=[tuple(tensor.shape) for tensor in inputs],
        device=hardware(str(device)),
        threads=torch.get_num_threads(),
        training=training,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        macs=macs,
        training_macs=training_macs,
        peak_bytes=peak,
        latency=latency,
        modules=rows,
    )


def _count(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[int, dict[str, int], dict[str, tuple[int, ...]]]:
    """Multiply-adds in all and by module, and the shapes of outputs."""
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[str, tuple[int, ...]] = {}
    by_module: dict[str, int] = {}
    before: list[int] = []
    beyond = 0  # what convolutions count themselves, less what was counted in their place

    def enter(module: nn.Module, *_: object) -> None:
        before.append(counter.get_total_flops() + beyond)

    def leave(module: nn.Module, _: object, output: object) -> None:
        nonlocal beyond
        name, flops = names[module], counter.get_total_flops() + beyond - before.pop()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and isinstance(output, Tensor):
            exact = 2 * output.numel() * module.weight[0].numel()
            beyond, flops = beyond + exact - flops, exact
        by_module[name] = by_module.get(name, 0) + flops // 2
        if isinstance(output, Tensor):
            outputs[name] = tuple(output.shape)

    with FlopCounterMode(display=False) as counter:
        handles = [module.register_forward_pre_hook(enter) for module in names]
        handles += [module.register_forward_hook(leave) for module in names]
        try:
            model(*inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{type(model).__name__} cannot take an input of {shapes}: {reason}") from error
        finally:
            for handle in handles:
                handle.remove()
    return (counter.get_total_flops() + beyond) // 2, by_module, outputs


def _convolution_backward(
    grad_shape: Sequence[int], x_shape: Sequence[int], w_shape: Sequence[int], *rest: Any, **_: Any
) -> int:
    """As many operations as forward for each gradient that is asked for; torch's own count forgets the groups."""
    transposed, wanted = bool(rest[4]), rest[7]
    places = x_shape if transposed else grad_shape
    return 2 * math.prod(places) * math.prod(w_shape[1:]) * (int(wanted[0]) + int(wanted[1]))


def _training_macs(model: nn.Module, both: Callable[[], None], parameters: Sequence[nn.Parameter]) -> int:
    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    ) as counter:
        try:
            both()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{type(model).__name__} cannot be trained on this input: {reason}") from error
    for parameter in parameters:
        parameter.grad = None
    return counter.get_total_flops() // 2


def _total(output: object) -> Tensor:
    """The sum of all floating-point tensors of an output, however nested."""
    if isinstance(output, Tensor):
        return output.float().sum() if output.is_floating_point() else torch.zeros(())
    if isinstance(output, Mapping):
        output = list(output.values())
    elif hasattr(output, "__dataclass_fields__"):
        output = list(vars(output).values())
    if isinstance(output, list | tuple):
        found = [_total(part) for part in output]
        found = [part for part in found if part.requires_grad]
        return torch.stack(found).sum() if found else torch.zeros(())
    return torch.zeros(())


def _latency(run: Callable[[], None], device: torch.device, runs: int) -> Latency:
    seconds = []
    for _ in range(runs):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    at = torch.quantile(torch.tensor(seconds, dtype=torch.float64), torch.tensor([0.1, 0.9, 0.99], dtype=torch.float64))
    p10, p90, p99 = at.tolist()
    return Latency(statistics.median(seconds), p10, p90, p99, runs)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _left_alone(model: nn.Module, training: bool) -> Iterator[None]:
    """Set the mode; put modes, gradients and buffers back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    grads = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if training else []
    model.train(training)
    for parameter, _ in grads:
        parameter.grad = None
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, grad in grads:
            parameter.grad = grad
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
