"""Networks that the tests explain."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def with_modules() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


class WithFunctions(nn.Module):
    """The same network, with functional and in-place ReLUs."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        twin = with_modules()
        self.first, self.second, self.head = twin[0], twin[3], twin[7]
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x), inplace=self.in_place), 2)
        x = self.second(x)
        x = x.relu_() if self.in_place else torch.relu(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
