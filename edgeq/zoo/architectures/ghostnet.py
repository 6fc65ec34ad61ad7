"""GhostNet 1.0: Han et al. 2020, "GhostNet: More Features from Cheap Operations", arXiv 1911.11907, table 1.

State-dict names as in the authors' release.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.layers import conv_norm_activation, make_divisible
from edgeq.zoo.architectures.random_weights import with_random_weights


@dataclass(frozen=True, slots=True)
class _Block:
    kernel: int
    hidden: int
    channels_out: int
    has_squeeze: bool
    stride: int


_STAGES = (
    (_Block(3, 16, 16, False, 1),),
    (_Block(3, 48, 24, False, 2),),
    (_Block(3, 72, 24, False, 1),),
    (_Block(5, 72, 40, True, 2),),
    (_Block(5, 120, 40, True, 1),),
    (_Block(3, 240, 80, False, 2),),
    (
        _Block(3, 200, 80, False, 1),
        _Block(3, 184, 80, False, 1),
        _Block(3, 184, 80, False, 1),
        _Block(3, 480, 112, True, 1),
        _Block(3, 672, 112, True, 1),
    ),
    (_Block(5, 672, 160, True, 2),),
    (
        _Block(5, 960, 160, False, 1),
        _Block(5, 960, 160, True, 1),
        _Block(5, 960, 160, False, 1),
        _Block(5, 960, 160, True, 1),
    ),
)


class GhostModule(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half by a depthwise 3x3 of the first (ratio 2)."""

    def __init__(self, channels_in: int, channels_out: int, has_relu: bool) -> None:
        super().__init__()
        half = channels_out // 2
        activation = nn.ReLU if has_relu else nn.Identity
        self.primary_conv = conv_norm_activation(channels_in, half, activation=activation)
        self.cheap_operation = conv_norm_activation(half, half, 3, groups=half, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary_conv(x)
        return torch.cat((primary, self.cheap_operation(primary)), dim=1)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in [0, 1] computed from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = make_divisible(channels * 0.25, 4)
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = nn.functional.relu(self.conv_reduce(nn.functional.adaptive_avg_pool2d(x, 1)))
        return x * nn.functional.hardsigmoid(self.conv_expand(gate))


class GhostBottleneck(nn.Module):
    """Ghost module, depthwise kxk at stride 2, squeeze-and-excite, linear ghost module; plus a shortcut."""

    def __init__(self, channels_in: int, block: _Block) -> None:
        super().__init__()
        self.is_strided = block.stride > 1
        hidden, kernel, stride = block.hidden, block.kernel, block.stride
        self.ghost1 = GhostModule(channels_in, hidden, has_relu=True)
        if self.is_strided:
            self.conv_dw = nn.Conv2d(
                hidden, hidden, kernel, stride, (kernel - 1) // 2, groups=hidden, bias=False
            )
            self.bn_dw = nn.BatchNorm2d(hidden)
        self.se = SqueezeExcite(hidden) if block.has_squeeze else nn.Identity()
        self.ghost2 = GhostModule(hidden, block.channels_out, has_relu=False)
        if channels_in == block.channels_out and not self.is_strided:
            self.shortcut = nn.Sequential()
        else:
            self.shortcut = nn.Sequential(
                *conv_norm_activation(channels_in, channels_in, kernel, stride, channels_in, None),
                *conv_norm_activation(channels_in, block.channels_out, activation=None),
            )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ghost1(x)
        if self.is_strided:
            y = self.bn_dw(self.conv_dw(y))
        y = self.ghost2(self.se(y))
        return y + self.shortcut(x)


class _ConvNormRelu(nn.Module):
    """Convolution, batch norm and ReLU under the release's names."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.bn1(self.conv(x)))


class GhostNet(nn.Module):
    """Width 1.0. Input (n, 3, h, w), h and w multiples of 32; output (n, classes) logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        stages: list[nn.Module] = []
        for blocks in _STAGES:
            bottlenecks: list[nn.Module] = []
            for block in blocks:
                bottlenecks.append(GhostBottleneck(channels, block))
                channels = block.channels_out
            stages.append(nn.Sequential(*bottlenecks))
        widest = _STAGES[-1][-1].hidden
        stages.append(nn.Sequential(_ConvNormRelu(channels, widest)))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(widest, 1280, 1)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.bn1(self.conv_stem(x)))
        x = nn.functional.adaptive_avg_pool2d(self.blocks(x), 1)
        x = nn.functional.relu(self.conv_head(x))
        logits: Tensor = self.classifier(nn.functional.dropout(torch.flatten(x, 1), 0.2, self.training))
        return logits


def ghostnet_1_0(num_classes: int = 1000, *, seed: int | None = 0) -> GhostNet:
    """GhostNet 1.0 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: GhostNet(num_classes), (3, 160, 160), seed)
