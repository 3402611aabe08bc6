"""A small task with all that makes resuming hard: dropout, augmentation, shuffling, momentum, a schedule."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from saccade.training import DataModule, Task


class Noisy(Dataset):
    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(size, 6, generator=generator)
        self.y = (self.x.sum(dim=1) > 0).long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index] + 0.3 * torch.randn(6), self.y[index]


class ToyData(DataModule):
    def __init__(self, size: int = 44, batch_size: int = 8, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.size = size

    def train_set(self) -> Dataset:
        return Noisy(self.size)

    def val_set(self) -> Dataset:
        return Noisy(16)


class ToyTask(Task):
    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(
            optimizer=lambda groups: torch.optim.SGD(groups, lr=0.2, momentum=0.9),
            lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        )
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(dropout), nn.Linear(8, 2))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.finite(F.cross_entropy(self.net(batch[0]), batch[1]))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", F.cross_entropy(self.net(batch[0]), batch[1]))
