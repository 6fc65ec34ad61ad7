"""SqueezeNet 1.1: Iandola et al. 2016, "SqueezeNet", arXiv 1602.07360, in the authors' later version 1.1.

State-dict names as in torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.random_weights import with_random_weights


class Fire(nn.Module):
    """Squeeze 1x1, then expand by 1x1 and by 3x3 side by side; ReLU after each."""

    def __init__(self, channels_in: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.squeeze(x))
        return torch.cat(
            (nn.functional.relu(self.expand1x1(x)), nn.functional.relu(self.expand3x3(x))), dim=1
        )


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


class SqueezeNet11(nn.Module):
    """Input (n, 3, h, w) of at least 32x32; output (n, classes) logits >= 0 (ReLU before the pooling)."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2),
            nn.ReLU(),
            _pool(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            _pool(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            _pool(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(512, num_classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


def squeezenet1_1(num_classes: int = 1000, *, seed: int | None = 0) -> SqueezeNet11:
    """SqueezeNet 1.1 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: SqueezeNet11(num_classes), (3, 160, 160), seed)
