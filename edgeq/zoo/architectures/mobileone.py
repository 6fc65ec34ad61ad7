"""MobileOne-S0.

Vasu et al. 2023, "MobileOne: An Improved One millisecond Mobile Backbone", arXiv 2206.04040, table 2.

State-dict names as in the authors' release, in both forms: branches for training, one convolution a block for
inference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeq.zoo.architectures.layers import conv_norm_activation
from edgeq.zoo.architectures.random_weights import with_random_weights

# Blocks and output channels of stages 1 to 4 (widths 0.75, 1, 1 and 2 of 64, 128, 256 and 512).
_STAGES = ((2, 48), (8, 128), (10, 256), (1, 1024))
_BRANCHES = 4


class _ConvNorm(nn.Sequential):
    """Convolution and batch norm under the release's names."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        conv, norm = conv_norm_activation(channels_in, channels_out, kernel, stride, groups, None)
        self.add_module("conv", conv)
        self.add_module("bn", norm)


class MobileOneBlock(nn.Module):
    """Sum of parallel convolutions and a batch-normed identity, then ReLU; or the one equal convolution."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        has_skip = channels_in == channels_out and stride == 1
        self.rbr_skip = nn.BatchNorm2d(channels_in) if has_skip else None
        self.rbr_conv: nn.ModuleList | None = nn.ModuleList(
            _ConvNorm(channels_in, channels_out, kernel, stride, groups) for _ in range(_BRANCHES)
        )
        self.rbr_scale = _ConvNorm(channels_in, channels_out, 1, stride, groups) if kernel > 1 else None
        self.reparam_conv: nn.Conv2d | None = None
        self._convolution = (channels_in, channels_out, kernel, stride, (kernel - 1) // 2, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return nn.functional.relu(self.reparam_conv(x))
        branches = [
            branch(x)
            for branch in (self.rbr_skip, self.rbr_scale, *(self.rbr_conv or ()))
            if branch is not None
        ]
        total: Tensor = branches[0]
        for branch in branches[1:]:
            total = total + branch
        return nn.functional.relu(total)

    def reparameterize(self) -> None:
        """Replaces the branches by one convolution with bias, in place (section 3.2 of the paper)."""
        if self.reparam_conv is None:
            with torch.no_grad():
                self.reparam_conv = self._folded()
            self.rbr_skip = self.rbr_conv = self.rbr_scale = None

    def _folded(self) -> nn.Conv2d:
        """The convolution equal to the branches."""
        conv = nn.utils.skip_init(nn.Conv2d, *self._convolution, bias=True)
        weight = torch.zeros_like(conv.weight, dtype=torch.float64)
        bias = torch.zeros(conv.out_channels, dtype=torch.float64)
        for branch in (*(self.rbr_conv or ()), self.rbr_scale):
            if branch is not None:
                self._add_folded(weight, bias, branch.conv.weight, branch.bn)
        if self.rbr_skip is not None:
            identity = torch.zeros(conv.out_channels, conv.in_channels // self.groups, 1, 1)
            channels = torch.arange(conv.out_channels)
            identity[channels, channels % (conv.in_channels // self.groups)] = 1.0
            self._add_folded(weight, bias, identity, self.rbr_skip)
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)
        return conv

    def _add_folded(self, weight: Tensor, bias: Tensor, kernel: Tensor, norm: nn.BatchNorm2d) -> None:
        """Adds a branch to the sums, batch norm folded in float64; a smaller kernel sits in the middle."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        margin = (self.kernel - kernel.shape[-1]) // 2
        weight += nn.functional.pad(kernel.double() * scale.reshape(-1, 1, 1, 1), [margin] * 4)
        bias += norm.bias.double() - norm.running_mean.double() * scale


class MobileOneS0(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32; output (n, classes) logits. Built in the training form."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = _STAGES[0][1]
        self.stage0 = MobileOneBlock(3, channels, 3, 2)
        stages: list[nn.Module] = []
        for blocks, channels_out in _STAGES:
            layers: list[nn.Module] = []
            for index in range(blocks):
                layers.append(MobileOneBlock(channels, channels, 3, 2 if index == 0 else 1, channels))
                layers.append(MobileOneBlock(channels, channels_out, 1))
                channels = channels_out
            stages.append(nn.Sequential(*layers))
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stage0(x)))))
        logits: Tensor = self.linear(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))
        return logits

    def reparameterize(self) -> MobileOneS0:
        """Turns the training form into the inference form, in place: the same function in evaluation mode.

        Returns:
            This network.
        """
        for module in self.modules():
            if isinstance(module, MobileOneBlock):
                module.reparameterize()
        return self


def mobileone_s0(num_classes: int = 1000, *, seed: int | None = 0, train_form: bool = False) -> MobileOneS0:
    """MobileOne-S0 with random weights, in evaluation mode; see `with_random_weights` for the seed.

    Args:
        num_classes: Logits.
        seed: Of the random weights.
        train_form: Keeps the parallel branches; otherwise they are one convolution a block.
    """
    network = with_random_weights(lambda: MobileOneS0(num_classes), (3, 160, 160), seed)
    return network if train_form else network.reparameterize()
