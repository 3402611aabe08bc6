"""Data for a search: the training clips in two halves, one for the weights and one for the architectures."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from saccade.action.datamodule import ActionData
from saccade.data.clips import ClipDataset, collate_clips

HELD_OUT = "held_out"
"""Under this key a training batch has the batch of the other half."""


class Halves(Dataset[dict[str, Any]]):
    """Two data sets side by side: a sample of the first, with one of the second under `held_out`.

    Args:
        first: Samples as dicts.
        second: As many samples, or one more.
    """

    def __init__(self, first: Dataset[dict[str, Any]], second: Dataset[dict[str, Any]]) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Both samples."""
        return {**self.first[index], HELD_OUT: self.second[index]}


def collate_halves(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Join samples to a batch, with the batch of the other half under `held_out` where there is one.

    Args:
        samples: Of [`Halves`][saccade.action.search_data.Halves], or single clips.

    Returns:
        As [`collate_clips`][saccade.data.clips.collate_clips].
    """
    batch = collate_clips(samples)
    if samples and HELD_OUT in samples[0]:
        held_out = collate_clips([sample[HELD_OUT] for sample in samples])
        batch |= {HELD_OUT: held_out, "skipped": [*batch["skipped"], *held_out["skipped"]]}
    return batch


class SearchData(ActionData):
    """Clips of an action data set for an architecture search; arguments as of `ActionData`.

    The training split is halved once, by the seed: the weights never see the clips that architectures are judged by. An
    epoch goes over one half, with the other beside it; a clip that cannot be read is replaced by one of its own half.
    """

    collate = staticmethod(collate_halves)

    def train_set(self) -> Halves:
        """Pairs of clips, one of each half."""
        whole: Any = super().train_set()
        if len(whole) < 2:
            raise ValueError(f"a search needs at least 2 training clips, one for each half, not {len(whole)}")
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(self.seed)).tolist()
        halves = []
        for places in (order[: len(order) // 2], order[len(order) // 2 :]):
            records = [whole.records[place] for place in places]
            halves.append(ClipDataset(records, whole.sampler, whole.transform, train=True, strict=self.strict))
        return Halves(*halves)
