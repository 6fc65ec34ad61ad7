"""ResNet-18 and ResNet-50.

He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, table 1.

State-dict names as in torchvision; as there, the bottleneck's stride is in its 3x3 convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.random_weights import with_random_weights


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nn.functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Reduce 1x1, 3x3, expand 1x1 by four, and a shortcut."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = _projection(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu(self.bn1(self.conv1(x)))
        y = nn.functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nn.functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def _projection(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    """The 1x1 shortcut (option B of the paper), or None where the identity fits."""
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
    )


class ResNet(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32; output (n, classes) logits."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, int, int, int],
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        stages: list[nn.Module] = []
        for stage, count in enumerate(blocks):
            width = 64 << stage
            layers: list[nn.Module] = []
            for index in range(count):
                layers.append(block(channels, width, 2 if stage > 0 and index == 0 else 1))
                channels = width * block.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(nn.functional.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))
        return logits


def resnet18(num_classes: int = 1000, *, seed: int | None = 0) -> ResNet:
    """ResNet-18 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: ResNet(BasicBlock, (2, 2, 2, 2), num_classes), (3, 160, 160), seed)


def resnet50(num_classes: int = 1000, *, seed: int | None = 0) -> ResNet:
    """ResNet-50 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: ResNet(Bottleneck, (3, 4, 6, 3), num_classes), (3, 160, 160), seed)
