"""The data module of action data sets in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from saccade.action.datamodule import ActionData
from saccade.action.splits import Split
from saccade.data.clips import ClipDataset, ClipRecord
from saccade.data.shard_files import (
    INDEX,
    ShardIndex,
    count_clips,
    expand_shards,
    is_local,
    read_index,
    write_shards,
)
from saccade.data.shards import ShardClips, ShardLoader


class ShardData(ActionData):
    """Clips of an action data set out of tar shards, as streams.

    Shards are those of `{train,val,test}/` in `root`, as `write_splits` leaves them, or those that patterns name. The
    settings of frames, views and augmentation are those of [`ActionData`][saccade.action.datamodule.ActionData].

    Args:
        root: Folder of the shards' folders.
        shards: Split to pattern, such as `{train: "/disk{1,2}/shard-{000000..000123}.tar"}`; URLs are taken as well.
        samples: Clips of a training epoch; `None`: as many as the index `shards.json` says, or as are counted in
            shards on disks. URLs without an index need it.
        buffer: Undecoded clips among which each stream draws the next one in training.
        kwargs: Of `ActionData`, but for the layout.

    Raises:
        FileNotFoundError: Shards that are not there (when a split is first asked for).
    """

    def __init__(
        self,
        root: str | None = None,
        shards: dict[str, str] | None = None,
        samples: int | None = None,
        buffer: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(layout="folder", root=root, **kwargs)
        unknown = sorted(set(shards or {}) - {"train", "val", "test"})
        if unknown:
            raise ValueError(f"the splits are train, val and test, not {unknown[0]!r}")
        if samples is not None and samples < 1:
            raise ValueError(f"samples has to be at least 1, not {samples}")
        self.shards, self.samples, self.buffer = dict(shards or {}), samples, buffer

    def split(self, name: str) -> Split:
        """The shards of a split, a record each.

        Args:
            name: `train`, `val` or `test`.

        Returns:
            The split.

        Raises:
            FileNotFoundError: Shards that are not there.
            ValueError: A malformed index.
        """
        urls = self._urls(name)
        index = self._index(urls)
        return Split([ClipRecord(Path(url)) for url in urls], index.classes, index.mirrored)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches, from where a resumed run stopped."""
        return ShardLoader(self._clips(super().train_set(), "train"), self.num_workers, self.collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches: one centre crop of one clip a video."""
        return self._evaluation_loader(super().val_set(), "val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches: all views of the test protocol."""
        return self._evaluation_loader(super().test_set(), "test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches to predict: those of the test."""
        return self.test_dataloader()

    def _evaluation_loader(self, dataset: Dataset[Any], name: str) -> DataLoader[Any]:
        clips = self._clips(dataset, name)
        return DataLoader(clips, self.batch_size, num_workers=self.num_workers, collate_fn=self.collate)

    def _clips(self, dataset: Dataset[Any], name: str) -> ShardClips:
        """The stream in the place of a data set of records: the same sampling and transforms."""
        if not isinstance(dataset, ClipDataset):
            raise TypeError(f"expected a ClipDataset, found {type(dataset).__name__}")
        urls = self._urls(name)
        epoch, start = self._position
        return ShardClips(
            urls,
            dataset.sampler,
            dataset.transform,
            train=dataset.train,
            samples=self._count(urls) if dataset.train else 0,
            batch_size=self.batch_size,
            views=dataset.views,
            buffer=self.buffer,
            seed=self.seed,
            strict=self.strict,
            epoch=epoch,
            start=start if dataset.train else 0,
        )

    def _urls(self, name: str) -> list[str]:
        if name not in self.shards and name == "test" and not (self.root / "test").is_dir():
            name = "val"
        return expand_shards(self.shards.get(name, str(self.root / name)))

    def _index(self, urls: list[str]) -> ShardIndex:
        """The indices beside the shards, joined; an empty one where there is none."""
        files = sorted({Path(url).parent / INDEX for url in urls if is_local(url)})
        found = [read_index(file) for file in files if file.is_file()]
        counts = {
            str(file.parent / name): n
            for file in files
            if file.is_file()
            for name, n in read_index(file).shards.items()
        }
        first = found[0] if found else ShardIndex({})
        return ShardIndex(counts, first.classes, first.mirrored)

    def _count(self, urls: list[str]) -> int:
        if self.samples is not None:
            return self.samples
        remote = [url for url in urls if not is_local(url)]
        if remote:
            raise ValueError(f"how many clips {remote[0]} and the others hold is not known: give samples")
        known = self._index(urls).shards
        return sum(known[str(Path(url))] if str(Path(url)) in known else count_clips(url) for url in urls)


def write_splits(
    data: ActionData, folder: str | Path, splits: tuple[str, ...] = ("train", "val"), **limits: Any
) -> None:
    """Write splits of a data set of any layout as shards that [`ShardData`][saccade.action.shard_data.ShardData] reads.

    Args:
        data: The data set.
        folder: Receives a folder for each split.
        splits: Which.
        limits: Of [`write_shards`][saccade.data.shard_files.write_shards]: `most_clips`, `most_bytes`, `seed`.

    Raises:
        FileNotFoundError: The data set is not there.
        FileExistsError: Shards are there already.
    """
    for name in splits:
        split = data.split(name)
        write_shards(split.records, Path(folder) / name, classes=split.classes, mirrored=split.mirrored, **limits)
