"""Pieces that several networks share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least `divisor` and at least 0.9 of `channels`.

    The rounding of the MobileNet papers' reference code.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def conv_norm_activation(
    channels_in: int,
    channels_out: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
    epsilon: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias (0), batch norm (1), activation (2, if any).

    The padding is symmetric and keeps the size at stride 1.

    Args:
        channels_in: Input channels.
        channels_out: Output channels.
        kernel: Odd kernel size.
        stride: Stride in both directions.
        groups: Convolution groups.
        activation: Makes the activation, or None.
        epsilon: Of the batch norm.
    """
    parts: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=epsilon),
    ]
    if activation is not None:
        parts.append(activation())
    return nn.Sequential(*parts)
