"""The data module of every action data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from saccade.action.datasets import READERS, SOURCES, Layout
from saccade.action.splits import Split
from saccade.data.clips import ClipDataset, ClipSampler, collate_clips, existing
from saccade.data.root import default_root
from saccade.data.transforms import EvalTransform, LabelAwareFlip, ShortSideCrop, TrainTransform, augmentation
from saccade.nn.input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from saccade.training.data import DataModule


class ActionData(DataModule):
    """Clips of an action data set for training, validation and test.

    Args:
        layout: `ssv1`, `ssv2`, `kinetics`, `ucf101`, `hmdb51`, `diving48`, `gym99`, `gym288`, `epic`;
            `folder`: `{train,val,test}/CLASS/*.mp4`; `csv`: `{train,val,test}.csv` with `path label` lines;
            `frames`: TSN lists `{train,val,test}.txt`.
        root: Folder of the data set in that layout; where `None` the folder named after the layout in the data root.
        sampling: Rule by which frames are drawn, see [`ClipSampler`][saccade.data.clips.ClipSampler].
        frames: Frames in a clip.
        stride: From one frame to the next, for the rule `clip`.
        size: Side of the clips in pixels.
        test_clips: Clips a video in test.
        test_crops: Crops of each of them, 1 or 3.
        resize: (height, width) that training frames are scaled to before cropping; `None`: as they are.
        crop: `multi_scale`, as TSN crops for training, or `short_side`, as SlowFast does.
        shortest: Least and greatest length of the shorter side before a `short_side` crop, in pixels.
        inverse: Draw that length uniformly in 1 / length.
        augment: Further augmentation in training: `none`, `colour`, `randaugment` or `autoaugment`.
        flip: Mirror half of the training clips; classes that tell left from right change with it.
        fold: Split of UCF101 and HMDB51, 1 to 3.
        mean: Of the channels.
        std: Of the channels.
        channels: Order of the channels that the model is fed.
        num_classes: Classes, or with several labels a dict of their classes; where given, labels outside are an error
            at the start.
        strict: A missing or unreadable clip is an error.
        batch_size: Clips a step and a process.
        num_workers: Processes that decode.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        layout: Layout = "folder",
        root: str | None = None,
        sampling: Literal["segment", "dense", "interval", "clip"] = "segment",
        frames: int = 8,
        stride: int = 8,
        size: int = 224,
        test_clips: int = 1,
        test_crops: int = 1,
        resize: tuple[int, int] | None = (240, 320),
        crop: Literal["multi_scale", "short_side"] = "multi_scale",
        shortest: tuple[int, int] = (256, 320),
        inverse: bool = False,
        augment: Literal["none", "colour", "randaugment", "autoaugment"] = "none",
        flip: bool = True,
        fold: int = 1,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        channels: Literal["RGB", "BGR"] = "RGB",
        num_classes: int | dict[str, int] | None = None,
        strict: bool = False,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.root = Path(root) if root else default_root() / layout
        self.layout, self.fold, self.strict = layout, fold, strict
        self.sampler = ClipSampler(sampling, frames, stride, test_clips)
        self.spec = InputSpec(size, frames, stride, tuple(mean), tuple(std), channels)
        self.test_crops, self.resize, self.flip, self.num_classes = test_crops, resize, flip, num_classes
        self.augment = augmentation(augment)
        self.crop = ShortSideCrop(size, shortest, inverse) if crop == "short_side" else None

    collate = staticmethod(collate_clips)

    def train_set(self) -> Dataset[Any]:
        """Clips of the training split, augmented."""
        split = self.split("train")
        flip = LabelAwareFlip(swap=split.mirrored) if self.flip else None
        transform = TrainTransform(self.spec, flip, self.resize, self.crop, self.augment)
        return ClipDataset(split.records, self.sampler, transform, train=True, strict=self.strict)

    def val_set(self) -> Dataset[Any]:
        """One centre crop of one clip a video."""
        return self._evaluation("val", 1, 1)

    def test_set(self) -> Dataset[Any]:
        """All views of the test protocol; the validation split where labels of a test split are not public."""
        return self._evaluation("test", self.sampler.views, self.test_crops)

    def split(self, name: str) -> Split:
        """Records of a split, those that are there.

        Args:
            name: `train`, `val` or `test`.

        Returns:
            The split.

        Raises:
            FileNotFoundError: The data set is not there.
            ValueError: A malformed list, or a label outside the classes.
        """
        where = f"; the data set is to be had from {SOURCES[self.layout]}" if self.layout in SOURCES else ""
        if not self.root.is_dir():
            raise FileNotFoundError(f"no data set in the layout {self.layout!r} at {self.root}{where}")
        try:
            split = READERS[self.layout](self.root, name, self.fold)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}{where}") from None
        if self.num_classes is not None:
            most = tuple(self.num_classes.values()) if isinstance(self.num_classes, dict) else (self.num_classes,)
            for record in split.records:
                label = record.label if isinstance(record.label, tuple) else (record.label,)
                if len(label) != len(most) or any(a >= b for a, b in zip(label, most, strict=True)):
                    raise ValueError(f"{record.path} has label {record.label}, outside {self.num_classes} classes")
        records = existing(split.records, f"{self.layout} {name}", self.strict)
        return Split(records, split.classes, split.mirrored)

    def _evaluation(self, name: str, clips: int, crops: int) -> Dataset[Any]:
        transform = EvalTransform(self.spec, crops)
        records = self.split(name).records
        return ClipDataset(records, self.sampler, transform, train=False, views=clips, strict=self.strict)
