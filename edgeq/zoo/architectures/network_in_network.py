"""Network in Network for CIFAR.

Lin et al. 2014, "Network In Network", arXiv 1312.4400, section 4.1 and the authors' release.

Batch norm is absent, as in the paper. Pooling pads by one on every side (padding left out of averages), so
that 32 halves to 16 and 8 as with the release's rounding up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.random_weights import with_random_weights


def _mlpconv(channels_in: int, channels: tuple[int, int, int], kernel: int) -> list[nn.Module]:
    """A kxk convolution and two 1x1 ones, ReLU after each."""
    first, second, third = channels
    return [
        nn.Conv2d(channels_in, first, kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.Conv2d(first, second, 1),
        nn.ReLU(),
        nn.Conv2d(second, third, 1),
        nn.ReLU(),
    ]


class NetworkInNetwork(nn.Module):
    """Input (n, 3, 32, 32); output (n, classes) logits, not negative (ReLU before the pooling)."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_mlpconv(3, (192, 160, 96), 5),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Dropout(0.5),
            *_mlpconv(96, (192, 192, 192), 5),
            nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
            nn.Dropout(0.5),
            *_mlpconv(192, (192, 192, num_classes), 3),
            nn.AdaptiveAvgPool2d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.features(x), 1)


def network_in_network(num_classes: int = 10, *, seed: int | None = 0) -> NetworkInNetwork:
    """Network in Network with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: NetworkInNetwork(num_classes), (3, 32, 32), seed)
