"""State dicts: reading them safely, and turning the authors' keys into ours.

A converter is a list of [`Rule`][saccade.checkpoints.Rule]s. Every key of the authors' file has to match one rule, and
every key of our module has to be filled: what is left over on either side is an error that lists it.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Rule:
    r"""Rename the keys that match `pattern` in full to `replacement` (`None` drops them), and map their tensors.

    Args:
        pattern: Regular expression for the whole key.
        replacement: What the key becomes; groups as in `re.sub`. `None`: a tensor that is known and not used.
        transform: Applied to the tensor.

    Example:
        >>> convert({"fc.weight": torch.zeros(2, 3)}, [Rule(r"fc\.(.*)", r"head.\1")]).keys()
        dict_keys(['head.weight'])
    """

    pattern: str
    replacement: str | None
    transform: Callable[[Tensor], Tensor] | None = None


def convert(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> StateDict:
    """Rename a state dict by the first rule that matches each key.

    Args:
        state: The authors' state dict.
        rules: Tried in order; the first that matches decides.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that no rule knows, or two keys that become one.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    converted: StateDict = {}
    unknown: list[str] = []
    for key, tensor in state.items():
        found = next(((match, rule) for regex, rule in compiled if (match := regex.fullmatch(key))), None)
        if found is None:
            unknown.append(key)
            continue
        match, rule = found
        if rule.replacement is None:
            continue
        name = match.expand(rule.replacement)
        if name in converted:
            raise ValueError(f"two keys of the checkpoint become {name!r}, the second is {key!r}")
        converted[name] = rule.transform(tensor) if rule.transform else tensor
    if unknown:
        raise ValueError(f"the checkpoint has {len(unknown)} key(s) that are not known here: {_list(unknown)}")
    return converted


def load_strict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict that must fit a module exactly.

    Args:
        module: Receives the tensors.
        state: One tensor of the right shape for every key of the module.

    Raises:
        ValueError: Missing or extra keys, or another shape; the message lists them.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    faults = [
        f"{len(faults)} {what}: {_list(faults)}"
        for what, faults in (("key(s) missing", missing), ("key(s) too many", extra), ("shape(s) differ", shapes))
        if faults
    ]
    if faults:
        raise ValueError(f"the state dict does not fit {type(module).__name__}: " + "; ".join(faults))
    module.load_state_dict(state)


def read_state(path: str | Path) -> StateDict:
    """Read a flat state dict from a `.safetensors` file or a torch file, without running code of the file.

    A wrapper such as `{"state_dict": ...}`, `{"model_state_dict": ...}` or `{"model_state": ...}` is opened, and
    the prefix `module.` that data-parallel training leaves on every key is taken off.

    Args:
        path: The file.

    Returns:
        Names to tensors on the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no checkpoint, or it holds objects that only unpickling code could build.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    content = read_torch(path)
    for key in ("state_dict", "model_state_dict", "model_state", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict of tensors")
    if content and all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def read_torch(path: str | Path) -> object:
    """Read a torch file with `weights_only`: tensors, plain containers and parsed options, nothing that runs.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        ValueError: It is no torch file, or it needs code to be run.
    """
    try:
        with torch.serialization.safe_globals([Namespace]):  # training scripts like to keep their options beside
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} was refused: it is not a plain file of tensors, and unpickling it could run code. "
            f"Save the state dict alone, or as safetensors ({reason[:120]})"
        ) from None
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is not a readable torch file: {' '.join(str(error).split())[:160] or 'it is empty'}"
        ) from None


def write_state(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict as safetensors.

    Args:
        state: Names to tensors.
        path: The file; its folder must exist.
    """
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, Path(path))


def _list(items: list[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
