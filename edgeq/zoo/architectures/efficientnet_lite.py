"""EfficientNet-Lite0.

Tan and Le 2019, "EfficientNet", arXiv 1905.11946, as changed for edge devices by the EfficientNet-Lite
release of 2020: ReLU6 for Swish, no squeeze-and-excite, stem and head of fixed width.

State-dict names as in the package efficientnet-lite-pytorch. Padding is TensorFlow's "same": at stride 2 and
an even size, the bottom and right edges get one row or column more than the top and left ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.random_weights import with_random_weights

_EPSILON = 1e-3
# Blocks, kernel, stride of the first block, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SamePaddingConv2d(nn.Conv2d):
    """Convolution without bias whose output size is ceil(input size / stride), as TensorFlow pads."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = _same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = _same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):
            return nn.functional.conv2d(x, self.weight, None, self.stride, (top, left), 1, self.groups)
        return super().forward(nn.functional.pad(x, (left, right, top, bottom)))


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class MBConvBlock(nn.Module):
    """Expand 1x1 (unless by 1), depthwise kxk, project 1x1; adds its input where the shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.has_residual = stride == 1 and channels_in == channels_out
        self.has_expansion = expansion != 1
        if self.has_expansion:
            self._expand_conv = SamePaddingConv2d(channels_in, hidden, 1)
            self._bn0 = nn.BatchNorm2d(hidden, eps=_EPSILON)
        self._depthwise_conv = SamePaddingConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = nn.BatchNorm2d(hidden, eps=_EPSILON)
        self._project_conv = SamePaddingConv2d(hidden, channels_out, 1)
        self._bn2 = nn.BatchNorm2d(channels_out, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.has_expansion else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.has_residual else y


class EfficientNetLite0(nn.Module):
    """Input (n, 3, h, w); output (n, classes) logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = SamePaddingConv2d(3, 32, 3, 2)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        channels = 32
        blocks: list[nn.Module] = []
        for count, kernel, stride, expansion, channels_out in _STAGES:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(MBConvBlock(channels, channels_out, kernel, step, expansion))
                channels = channels_out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SamePaddingConv2d(channels, 1280, 1)
        self._bn1 = nn.BatchNorm2d(1280, eps=_EPSILON)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        x = nn.functional.relu6(self._bn1(self._conv_head(self._blocks(x))))
        x = torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)
        logits: Tensor = self._fc(self._dropout(x))
        return logits


def efficientnet_lite0(num_classes: int = 1000, *, seed: int | None = 0) -> EfficientNetLite0:
    """EfficientNet-Lite0 with random weights, in evaluation mode; see `with_random_weights` for the seed."""
    return with_random_weights(lambda: EfficientNetLite0(num_classes), (3, 160, 160), seed)
