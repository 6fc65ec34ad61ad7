"""ShuffleNetV2 x1.0.

Ma et al. 2018, "Practical Guidelines for Efficient CNN Architecture Design", arXiv 1807.11164, table 5.

State-dict names as in torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.layers import conv_norm_activation
from edgeq.zoo.architectures.random_weights import with_random_weights

# Blocks and output channels of stages 2, 3 and 4.
_STAGES = ((4, 116), (8, 232), (4, 464))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves the channels of the groups; shape (n, c, h, w), c a multiple of `groups`."""
    _, channels, height, width = x.shape
    x = x.view(-1, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(-1, channels, height, width)


class ShuffleUnit(nn.Module):
    """Two branches, concatenated and shuffled. At stride 1 the first one is half of the input, untouched."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        half = channels_out // 2
        self.is_split = stride == 1
        if self.is_split:
            self.branch1 = nn.Sequential()
        else:
            self.branch1 = nn.Sequential(
                *conv_norm_activation(channels_in, channels_in, 3, stride, channels_in, None),
                *conv_norm_activation(channels_in, half),
            )
        self.branch2 = nn.Sequential(
            *conv_norm_activation(half if self.is_split else channels_in, half),
            *conv_norm_activation(half, half, 3, stride, half, None),
            *conv_norm_activation(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.is_split:
            kept, changed = x.chunk(2, dim=1)
            y = torch.cat((kept, self.branch2(changed)), dim=1)
        else:
            y = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(y, 2)


class ShuffleNetV2(nn.Module):
    """Width 1.0. Input (n, 3, h, w), h and w multiples of 32; output (n, classes) logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = conv_norm_activation(3, 24, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 24
        stages: list[nn.Module] = []
        for blocks, channels_out in _STAGES:
            units = [ShuffleUnit(channels, channels_out, 2)]
            units += [ShuffleUnit(channels_out, channels_out, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*units))
            channels = channels_out
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = conv_norm_activation(channels, 1024)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def shufflenet_v2_x1_0(num_classes: int = 1000, *, seed: int | None = 0) -> ShuffleNetV2:
    """ShuffleNetV2 x1.0 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: ShuffleNetV2(num_classes), (3, 160, 160), seed)
