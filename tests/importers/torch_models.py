"""Factories that `package.module:factory` names in the tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """A convolution with everything around it that a model may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.norm(self.conv(x)))
        result: Tensor = self.classifier(self.dropout(y.mean((2, 3))))
        return result


def small() -> nn.Module:
    return Small()


def small_with_input() -> tuple[nn.Module, Tensor]:
    return Small(), torch.zeros(1, 3, 8, 8)


def failing() -> nn.Module:
    raise RuntimeError("the weights are not there")
