"""Small things that the tests use; three of them are switches of ours, and setting them here sets them there."""

import logging
import re
import sys
import types
from pathlib import Path

import numpy as np
import torch

from saccade.metric import records, samplers
from saccade.metric.hierarchy import LabelMapper, labels_of_level
from saccade.metric.losses.base import Init as TorchInitWrapper  # noqa: F401
from saccade.metric.neighbours import default_device
from saccade.metric.samplers import choose, indices_by_label
from saccade.metric.tuples import located

FORWARDED = {"COLLECT_STATS": (records, "COLLECT_STATS"), "NUMPY_RANDOM": (samplers, "NUMPY_RANDOM")}


class _Module(types.ModuleType):
    def __setattr__(self, name, value):
        if name in FORWARDED:
            setattr(*FORWARDED[name], value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name):
        if name in FORWARDED:
            return getattr(*FORWARDED[name])
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def set_logger_name(name):
    """What ours logs goes to the logger of this name."""
    global LOGGER_NAME, LOGGER
    LOGGER_NAME = name
    LOGGER = logging.getLogger(name)
    logging.getLogger("saccade").parent = LOGGER


set_logger_name("PML")


def pos_inf(dtype):
    return torch.finfo(dtype).max


def neg_inf(dtype):
    return torch.finfo(dtype).min


def small_val(dtype):
    return torch.finfo(dtype).tiny


def is_list_or_tuple(x):
    return isinstance(x, list | tuple)


def try_next_on_generator(gen, iterable):
    """The next, from the start again at the end."""
    for source in (gen, iter(iterable)):
        for item in source:
            return source, item
    raise StopIteration


def numpy_to_torch(v):
    return torch.from_numpy(v) if isinstance(v, np.ndarray) else v


def to_numpy(v):
    return v.cpu().numpy() if isinstance(v, torch.Tensor) else v


def to_dtype(x, tensor=None, dtype=None):
    return x if torch.is_autocast_enabled() else x.to(dtype if dtype is not None else tensor.dtype)


def to_device(x, tensor=None, device=None, dtype=None):
    x = x.to(device if device is not None else tensor.device)
    return x if dtype is None else to_dtype(x, dtype=dtype)


def get_hierarchy_label(batch_labels, hierarchy_level):
    return labels_of_level(batch_labels, hierarchy_level)


class _Mapped(LabelMapper):
    """A function in place of a mapper."""

    def __init__(self, label_map):
        self.set_min_label_to_zero = True
        self.map = label_map


def map_labels(label_map, labels):
    return labels_of_level(labels, "all", _Mapped(label_map)).numpy()


def process_label(labels, hierarchy_level, label_map):
    return labels_of_level(labels, hierarchy_level, _Mapped(label_map))


def set_requires_grad(model, requires_grad):
    model.requires_grad_(requires_grad)


def shift_indices_tuple(indices_tuple, batch_size):
    """Positives and negatives that stand after the batch."""
    highest = max([int(index.max()) for index in indices_tuple if len(index)], default=0)
    return located(indices_tuple, torch.arange(batch_size, batch_size + highest + 1))


def safe_random_choice(input_data, size):
    return choose(samplers.NUMPY_RANDOM, input_data, size)


def unslice_by_n(input_tensors):
    return torch.stack(input_tensors, dim=1).flatten(0, 1)


def get_labels_to_indices(labels):
    return indices_by_label(labels)


def return_input(x):
    return x


def torch_arange_from_size(input, size_dim=0):
    return torch.arange(input.size(size_dim), device=input.device)


class EmbeddingDataset(torch.utils.data.Dataset):
    """Embeddings and labels."""

    def __init__(self, embeddings, labels):
        self.embeddings, self.labels = embeddings, labels

    def __len__(self):
        return len(self.embeddings)

    def __getitem__(self, idx):
        return self.embeddings[idx], self.labels[idx]


def sqlite_obj_to_dict(sqlite_obj):
    return {name: [row[name] for row in sqlite_obj] for name in sqlite_obj[0].keys()}  # noqa: SIM118


def torch_all_from_dim_to_end(x, dim):
    return x.reshape(*x.shape[:dim], -1).all(dim=-1)


def torch_standard_scaler(x):
    return (x - x.mean(dim=0)) / x.std(dim=0)


def list_of_recordable_attributes_list_names():
    return ["_record_these", "_record_these_stats"]


def latest_version(folder, string_to_glob="trunk_*.pth", best=False):
    """The largest number of a file, and its suffix."""
    pattern = re.compile(rf"_{'best' if best else ''}(\d+)\.pth$")
    found = [int(match[1]) for path in Path(folder).glob(string_to_glob) if (match := pattern.search(path.name))]
    if not found:
        return 0, None
    return max(found), f"best{max(found)}" if best else max(found)


def concatenate_indices_tuples(it1, it2):
    return tuple(torch.cat([x, y.to(x.device)]) for x, y in zip(it1, it2, strict=True))


def use_cuda_if_available():
    return default_device()


def get_label_map(labels):
    """Level to label to rank."""
    labels = np.asarray(labels)
    columns = labels.T if labels.ndim == 2 else labels[None]
    return {level: {label: at for at, label in enumerate(np.unique(column))} for level, column in enumerate(columns)}


__all__ = ["LabelMapper"]
sys.modules[__name__].__class__ = _Module
