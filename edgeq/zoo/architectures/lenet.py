"""LeNet-5: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", figure 2.

As the paper: tanh, average pooling, three convolutions, two linear layers. Simplified as is usual today:
every map of the second convolution sees all maps of the first, pooling has no weights, and a linear layer
stands for the radial-basis output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.random_weights import with_random_weights


class LeNet5(nn.Module):
    """Input (n, 1, 28, 28), padded to the paper's 32x32; output (n, classes) logits."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = nn.functional.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.flatten(torch.tanh(self.conv3(x)), 1)
        logits: Tensor = self.fc2(torch.tanh(self.fc1(x)))
        return logits


def lenet5(num_classes: int = 10, *, seed: int | None = 0) -> LeNet5:
    """LeNet-5 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: LeNet5(num_classes), (1, 28, 28), seed)
