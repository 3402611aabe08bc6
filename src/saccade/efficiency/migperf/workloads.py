"""What is run: a model by name, a module, or any callable, with inputs made for a batch size."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

InputSpec = tuple[int, ...] | Mapping[str, Any] | Callable[[int], Any]
"""The shape of a sample; or name to shape, `{"tokens": length}` meaning token ids; or a function of the batch size."""

BUILT_IN = ("small-cnn", "empty")


class SmallCNN(nn.Module):
    """Three convolutions and a linear layer on images of 3 x 32 x 32: a workload that needs nothing installed.

    Args:
        width: Channels of the first.
        num_classes: Outputs.

    Example:
        >>> SmallCNN(width=8)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    sample = (3, 32, 32)

    def __init__(self, width: int = 16, num_classes: int = 10) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (b, 3, h, w)."""
        return self.head(self.features(images).mean((2, 3)))


class Empty(nn.Module):
    """Computes nothing: what is left is what the harness costs."""

    sample = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """The input as it is."""
        return x


@dataclass(frozen=True)
class Workload:
    """A model with its inputs.

    Args:
        name: For records.
        run: Called with the inputs: positional for a tensor or tuple, by name for a mapping.
        inputs: Batch size to inputs on the CPU.
    """

    name: str
    run: Callable[..., Any]
    inputs: Callable[[int], Any]

    @property
    def module(self) -> nn.Module | None:
        """The model, where it is one."""
        return self.run if isinstance(self.run, nn.Module) else None

    def __call__(self, inputs: Any) -> Any:
        """Run on inputs."""
        if isinstance(inputs, Mapping):
            return self.run(**inputs)
        return self.run(*inputs) if isinstance(inputs, tuple) else self.run(inputs)


def workload(
    model: str | nn.Module | Callable[..., Any], input_spec: InputSpec | None = None, arguments: Sequence[str] = ()
) -> Workload:
    """Make a workload.

    Args:
        model: `small-cnn` or `empty`; `torchvision:NAME`; `transformers:TYPE` (such as `bert`, with random weights) or
            `transformers:FOLDER`; a recipe, a dotted path or a model of timm; a module; any callable.
        input_spec: What one sample looks like; what the model says where nothing is said.
        arguments: `key=value` for a model by name.

    Returns:
        It.

    Raises:
        ValueError: No such model, or nothing known about its inputs.
        ImportError: `transformers` is not installed.

    Example:
        >>> own = workload("small-cnn")
        >>> own(own.inputs(4)).shape
        torch.Size([4, 10])
    """
    named = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    built = _build(model, arguments) if isinstance(model, str) else model
    if not callable(built):
        raise TypeError(f"a workload is a name, a module or a callable, not a {type(built).__name__}")
    spec = input_spec if input_spec is not None else _spec_of(built)
    if spec is None:
        raise ValueError(f"{named} does not say what it takes: give input_spec (--input), such as 3,224,224")
    return Workload(named, built, _maker(spec))


def to_device(inputs: Any, device: torch.device) -> Any:
    """Inputs on a device, whatever they are nested in."""
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    if isinstance(inputs, Mapping):
        return {name: to_device(value, device) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(to_device(value, device) for value in inputs)
    return inputs


def first_tensor(output: Any) -> Tensor:
    """The first floating-point tensor of an output, such as the logits.

    Raises:
        ValueError: There is none.
    """
    queue = [output]
    while queue:
        here = queue.pop(0)
        if isinstance(here, Tensor) and here.is_floating_point():
            return here
        if isinstance(here, Mapping):
            queue += list(here.values())
        elif isinstance(here, list | tuple):
            queue += list(here)
        elif hasattr(here, "__dict__"):
            queue += list(vars(here).values())
    raise ValueError("the model's output holds no floating-point tensor: give a loss")


def default_loss(output: Any, inputs: Any) -> Tensor:
    """Cross-entropy with the labels 0, 1, 2... for logits (b, k), else the mean square."""
    values = first_tensor(output)
    if values.ndim == 2 and values.shape[1] > 1:
        labels = torch.arange(values.shape[0], device=values.device) % values.shape[1]
        return nn.functional.cross_entropy(values.float(), labels)
    return values.float().square().mean()


def _build(name: str, arguments: Sequence[str]) -> nn.Module:
    kind, _, rest = name.partition(":")
    if name in BUILT_IN:
        from saccade.training.models import build_model

        path = f"{__name__}.{'SmallCNN' if name == 'small-cnn' else 'Empty'}"
        return build_model(path, arguments) if arguments else {"small-cnn": SmallCNN, "empty": Empty}[name]()
    if kind == "torchvision":
        from torchvision.models import get_model

        from saccade.training.models import build_model

        if arguments:
            return build_model(f"torchvision.models.{rest}", arguments)
        return get_model(rest, weights=None)
    if kind == "transformers":
        return _transformer(rest)
    from saccade.training.models import build_model

    return build_model(name, arguments)


def _transformer(name: str) -> nn.Module:
    """By type, with random weights, or from a folder: nothing is fetched."""
    try:
        library = importlib.import_module("transformers")
    except ImportError:
        raise ImportError(f"transformers:{name} needs the package transformers (pip install transformers)") from None
    try:
        if "/" in name or name.startswith("."):
            return library.AutoModel.from_pretrained(name, local_files_only=True)
        return library.AutoModel.from_config(library.AutoConfig.for_model(name))
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"transformers has no model {name!r}: {' '.join(str(error).split())[:200]}") from None


def _spec_of(model: Any) -> InputSpec | None:
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "vocab_size"):
        return {"input_ids": {"tokens": 64, "vocabulary": int(config.vocab_size)}}
    if isinstance(getattr(model, "sample", None), tuple):
        return model.sample
    if isinstance(model, nn.Module):
        from saccade.training.models import default_input

        whole = default_input(model)
        if whole is None and type(model).__module__.startswith("torchvision.models"):
            return (3, 299, 299) if type(model).__name__ == "Inception3" else (3, 224, 224)
        return None if whole is None else whole[1:]
    return None


def _maker(spec: InputSpec) -> Callable[[int], Any]:
    if callable(spec):
        return spec
    if isinstance(spec, Mapping):
        makers = {name: _maker_of_one(own) for name, own in spec.items()}
        return lambda batch: {name: make(batch) for name, make in makers.items()}
    return _maker_of_one(spec)


def _maker_of_one(spec: Any) -> Callable[[int], Tensor]:
    if isinstance(spec, Mapping):
        unknown = set(spec) - {"tokens", "vocabulary"}
        if unknown or "tokens" not in spec:
            raise ValueError(f"token ids are {{tokens: LENGTH, vocabulary: SIZE}}, not {dict(spec)}")
        length, vocabulary = int(spec["tokens"]), int(spec.get("vocabulary", 30522))
        if length < 1 or vocabulary < 1:
            raise ValueError(f"tokens and vocabulary have to be at least 1, not {length} and {vocabulary}")
        return lambda batch: torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))
    shape = tuple(spec)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"the shape of a sample has whole numbers above 0, not {spec}")
    return lambda batch: torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
