"""MobileNetV3-Small: Howard et al. 2019, "Searching for MobileNetV3", arXiv 1905.02244, table 2.

State-dict names as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.layers import conv_norm_activation, make_divisible
from edgeq.zoo.architectures.random_weights import with_random_weights

_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class _Block:
    channels_in: int
    kernel: int
    hidden: int
    channels_out: int
    has_squeeze: bool
    activation: Callable[[], nn.Module]
    stride: int


_SMALL = (
    _Block(16, 3, 16, 16, True, nn.ReLU, 2),
    _Block(16, 3, 72, 24, False, nn.ReLU, 2),
    _Block(24, 3, 88, 24, False, nn.ReLU, 1),
    _Block(24, 5, 96, 40, True, nn.Hardswish, 2),
    _Block(40, 5, 240, 40, True, nn.Hardswish, 1),
    _Block(40, 5, 240, 40, True, nn.Hardswish, 1),
    _Block(40, 5, 120, 48, True, nn.Hardswish, 1),
    _Block(48, 5, 144, 48, True, nn.Hardswish, 1),
    _Block(48, 5, 288, 96, True, nn.Hardswish, 2),
    _Block(96, 5, 576, 96, True, nn.Hardswish, 1),
    _Block(96, 5, 576, 96, True, nn.Hardswish, 1),
)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in [0, 1] computed from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = make_divisible(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = nn.functional.relu(self.fc1(nn.functional.adaptive_avg_pool2d(x, 1)))
        return nn.functional.hardsigmoid(self.fc2(gate)) * x


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise kxk, squeeze-and-excite, project 1x1; adds its input where the shapes allow."""

    def __init__(self, block: _Block) -> None:
        super().__init__()
        hidden = block.hidden
        self.has_residual = block.stride == 1 and block.channels_in == block.channels_out
        layers: list[nn.Module] = []
        if hidden != block.channels_in:
            layers.append(
                conv_norm_activation(block.channels_in, hidden, 1, 1, 1, block.activation, _EPSILON)
            )
        layers.append(
            conv_norm_activation(
                hidden, hidden, block.kernel, block.stride, hidden, block.activation, _EPSILON
            )
        )
        if block.has_squeeze:
            layers.append(SqueezeExcitation(hidden))
        layers.append(conv_norm_activation(hidden, block.channels_out, 1, 1, 1, None, _EPSILON))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.has_residual else y


class MobileNetV3Small(nn.Module):
    """Width 1.0. Input (n, 3, h, w), h and w multiples of 32; output (n, classes) logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        last = _SMALL[-1].channels_out
        self.features = nn.Sequential(
            conv_norm_activation(3, 16, 3, 2, 1, nn.Hardswish, _EPSILON),
            *(InvertedResidual(block) for block in _SMALL),
            conv_norm_activation(last, 6 * last, 1, 1, 1, nn.Hardswish, _EPSILON),
        )
        self.classifier = nn.Sequential(
            nn.Linear(6 * last, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def mobilenet_v3_small(num_classes: int = 1000, *, seed: int | None = 0) -> MobileNetV3Small:
    """MobileNetV3-Small with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: MobileNetV3Small(num_classes), (3, 160, 160), seed)
