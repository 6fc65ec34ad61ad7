"""MobileNetV2: Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381, table 2.

State-dict names as in torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.layers import conv_norm_activation
from edgeq.zoo.architectures.random_weights import with_random_weights

# Expansion, output channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1x1 (unless by 1), depthwise 3x3, project 1x1; adds its input where the shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.has_residual = stride == 1 and channels_in == channels_out
        expand = [conv_norm_activation(channels_in, hidden, activation=nn.ReLU6)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            conv_norm_activation(hidden, hidden, 3, stride, groups=hidden, activation=nn.ReLU6),
            *conv_norm_activation(hidden, channels_out, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.has_residual else y


class MobileNetV2(nn.Module):
    """Width 1.0. Input (n, 3, h, w), h and w multiples of 32; output (n, classes) logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm_activation(3, 32, 3, 2, activation=nn.ReLU6)]
        channels = 32
        for expansion, channels_out, blocks, stride in _STAGES:
            for index in range(blocks):
                layers.append(
                    InvertedResidual(channels, channels_out, expansion, stride if index == 0 else 1)
                )
                channels = channels_out
        layers.append(conv_norm_activation(channels, 1280, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def mobilenet_v2(num_classes: int = 1000, *, seed: int | None = 0) -> MobileNetV2:
    """MobileNetV2 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: MobileNetV2(num_classes), (3, 160, 160), seed)
