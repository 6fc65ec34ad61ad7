"""The CIFAR ResNets.

He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 4.2.

Depth 6n + 2: three stages of n blocks, 16, 32 and 64 channels. The CIFAR-10 networks have the paper's
shortcuts without weights (option A) and the state-dict names of `akamaster/pytorch_resnet_cifar10`; the
CIFAR-100 ones have 1x1 convolutions (option B) and torchvision's names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.random_weights import with_random_weights

_WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Option A: every second row and column, with zero channels added evenly on both sides."""

    def __init__(self, added_channels: int) -> None:
        super().__init__()
        self.each_side = added_channels // 2

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.each_side, self.each_side))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        channels_in: Input channels.
        channels_out: Output channels.
        stride: Of the first convolution and of the shortcut.
        has_projection: Whether a shortcut between shapes is a 1x1 convolution (option B) and not padding
            (option A).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, has_projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.downsample = (
                nn.Sequential(
                    nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
                )
                if has_projection
                else PaddedShortcut(channels_out - channels_in)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nn.functional.relu(y + self.downsample(x))


class _CifarTrunk(nn.Module):
    """Everything but the last layer, whose name differs between the two families."""

    def __init__(self, depth: int, has_projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        channels = _WIDTHS[0]
        stages: list[nn.Module] = []
        for width in _WIDTHS:
            layers: list[nn.Module] = []
            for _ in range((depth - 2) // 6):
                layers.append(BasicBlock(channels, width, 1 if channels == width else 2, has_projection))
                channels = width
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3 = stages

    def pooled(self, x: Tensor) -> Tensor:
        """The 64 means that the last layer reads, shape (n, 64)."""
        x = nn.functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)


class PaddedCifarResNet(_CifarTrunk):
    """Option A; last layer `linear`. Input (n, 3, 32, 32); output (n, classes) logits."""

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__(depth, has_projection=False)
        self.linear = nn.Linear(_WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pooled(x))
        return logits


class ProjectedCifarResNet(_CifarTrunk):
    """Option B; last layer `fc`. Input (n, 3, 32, 32); output (n, classes) logits."""

    def __init__(self, depth: int, num_classes: int = 100) -> None:
        super().__init__(depth, has_projection=True)
        self.fc = nn.Linear(_WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pooled(x))
        return logits


def resnet20_cifar10(num_classes: int = 10, *, seed: int | None = 0) -> PaddedCifarResNet:
    """ResNet-20, option A, with random weights, for evaluation; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: PaddedCifarResNet(20, num_classes), (3, 32, 32), seed)


def resnet32_cifar10(num_classes: int = 10, *, seed: int | None = 0) -> PaddedCifarResNet:
    """ResNet-32, option A, with random weights, for evaluation; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: PaddedCifarResNet(32, num_classes), (3, 32, 32), seed)


def resnet56_cifar10(num_classes: int = 10, *, seed: int | None = 0) -> PaddedCifarResNet:
    """ResNet-56, option A, with random weights, for evaluation; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: PaddedCifarResNet(56, num_classes), (3, 32, 32), seed)


def resnet20_cifar100(num_classes: int = 100, *, seed: int | None = 0) -> ProjectedCifarResNet:
    """ResNet-20, option B, with random weights, for evaluation; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: ProjectedCifarResNet(20, num_classes), (3, 32, 32), seed)


def resnet56_cifar100(num_classes: int = 100, *, seed: int | None = 0) -> ProjectedCifarResNet:
    """ResNet-56, option B, with random weights, for evaluation; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: ProjectedCifarResNet(56, num_classes), (3, 32, 32), seed)
