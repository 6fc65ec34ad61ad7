"""The demo network: depthwise-separable, for the 8x8 digits (after Sandler et al. 2018, arXiv 1801.04381)."""

from __future__ import annotations

from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; adds its input where the shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.has_residual = stride == 1 and channels_in == channels_out
        self.expand = nn.Conv2d(channels_in, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, channels_out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(channels_out)
        self.activation = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.expand_norm(self.expand(x)))
        y = self.activation(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return x + y if self.has_residual else y


class DemoNet(nn.Module):
    """Stem, four inverted residual blocks (two with a residual add), pointwise head, pooling, linear layer.

    Input (n, 1, 8, 8), float, `pixel / 16`; output (n, classes) logits.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(
            InvertedResidual(16, 16, expansion=3, stride=1),
            InvertedResidual(16, 32, expansion=4, stride=2),
            InvertedResidual(32, 32, expansion=3, stride=1),
            InvertedResidual(32, 48, expansion=3, stride=1),
        )
        self.head = nn.Conv2d(48, 96, 1, bias=False)
        self.head_norm = nn.BatchNorm2d(96)
        self.activation = nn.ReLU6()
        self.classifier = nn.Linear(96, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.stem_norm(self.stem(x)))
        x = self.activation(self.head_norm(self.head(self.blocks(x))))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits
