"""DenseNet-121, growth rate 32.

Huang et al. 2017, "Densely Connected Convolutional Networks", arXiv 1608.06993, table 1.

State-dict names as in torchvision.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.random_weights import with_random_weights

_GROWTH = 32
_BLOCKS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 to four growths; batch norm, ReLU, 3x3 to one growth; appended to the input."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, 4 * _GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * _GROWTH)
        self.conv2 = nn.Conv2d(4 * _GROWTH, _GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(nn.functional.relu(self.norm1(x)))
        y = self.conv2(nn.functional.relu(self.norm2(y)))
        return torch.cat((x, y), dim=1)


class Transition(nn.Module):
    """Batch norm, ReLU, 1x1 to half the channels, 2x2 average pooling."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.conv(nn.functional.relu(self.norm(x))))
        return pooled


class DenseNet121(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32; output (n, classes) logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 64
        features: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            norm0=nn.BatchNorm2d(channels),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, 2, 1),
        )
        for number, count in enumerate(_BLOCKS, start=1):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for index in range(1, count + 1):
                layers[f"denselayer{index}"] = DenseLayer(channels)
                channels += _GROWTH
            features[f"denseblock{number}"] = nn.Sequential(layers)
            if number < len(_BLOCKS):
                features[f"transition{number}"] = Transition(channels, channels // 2)
                channels //= 2
        features["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(features)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(nn.functional.relu(self.features(x)), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def densenet121(num_classes: int = 1000, *, seed: int | None = 0) -> DenseNet121:
    """DenseNet-121 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: DenseNet121(num_classes), (3, 160, 160), seed)
