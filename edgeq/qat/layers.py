"""Layers that keep their batch norm while they train."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgeq.ops.base import TorchTensor
from edgeq.quantize.training.layers import FoldedLayer

SMALLEST_FACTOR = 1e-6
"""A batch norm's gamma / sqrt(variance) is kept this far from zero: outputs are divided by it in training."""


@dataclass(frozen=True, slots=True)
class Norm:
    """The batch norm behind a layer.

    Attributes:
        gamma: Learned factor, shape (channels,), like the others.
        beta: Learned shift.
        mean: Running mean of the layer's output without its bias.
        variance: Running variance.
        eps: Added to the variance.
        momentum: Weight of a new batch in the running statistics.
    """

    gamma: TorchTensor
    beta: TorchTensor
    mean: TorchTensor
    variance: TorchTensor
    eps: float
    momentum: float

    def factor(self) -> TorchTensor:
        """gamma / sqrt(variance + eps)."""
        return self.gamma / (self.variance + self.eps).sqrt()


class NormalisedLayer(FoldedLayer):
    """A layer with a batch norm behind it that trains.

    The weights are rounded as they will be folded, W * gamma / sqrt(running variance + eps). While statistics are
    taken, the product is divided by the same factor again and normalised by the batch's own mean and variance, so that
    rounding sees steady weights and training sees batch norm (Jacob et al. 2018, arXiv 1712.05877, section 3.2, in the
    form of Krishnamoorthi 2018, arXiv 1806.08342, section 3.2.2). In evaluation, and once frozen, the layer is the
    folded one, which is what is exported.

    Attributes:
        weight: Float weights before folding.
        bias: beta of the batch norm.
        gamma: gamma of the batch norm.
        running_mean: Its mean, of the product without a bias.
        running_var: Its variance.
        frozen: Whether the statistics stay as they are in training too.
    """

    def __init__(self, weight: TorchTensor, bits: int, norm: Norm) -> None:
        super().__init__(weight, norm.beta, bits)
        self.gamma = nn.Parameter(norm.gamma.clone())
        self.register_buffer("running_mean", norm.mean.clone())
        self.register_buffer("running_var", norm.variance.clone())
        self.eps, self.momentum = norm.eps, norm.momentum
        self.frozen = False

    def _factor(self) -> TorchTensor:
        factor = self.gamma / (self.running_var + self.eps).sqrt()
        smallest = torch.where(factor < 0, -SMALLEST_FACTOR, SMALLEST_FACTOR)
        return torch.where(factor.abs() < SMALLEST_FACTOR, smallest, factor)

    def _shaped(self, factor: TorchTensor) -> TorchTensor:
        return factor.reshape(-1, *[1] * (self.weight.ndim - 1))

    def folded(self) -> tuple[TorchTensor, TorchTensor]:
        """The float weights and bias with the batch norm folded in."""
        factor = self._factor()
        return self.weight * self._shaped(factor), self.bias - self.running_mean * factor

    def restart(self, weight: TorchTensor, bias: TorchTensor, scale: TorchTensor, bits: int) -> None:
        """Takes other folded weights and bias: the batch norm stays, beta takes up what the bias differs."""
        with torch.no_grad():
            factor = self._factor()
            super().restart(weight / self._shaped(factor), bias + self.running_mean * factor, scale, bits)

    def normalises(self) -> bool:
        """Whether statistics are taken: in training, until frozen."""
        return self.training and not self.frozen

    def finish(self, y: TorchTensor) -> TorchTensor:
        """Normalises the product with the statistics of the batch, and moves the running ones."""
        y = y / self._factor().reshape(1, -1, *[1] * (y.ndim - 2))
        return nn.functional.batch_norm(
            y, self.running_mean, self.running_var, self.gamma, self.bias, True, self.momentum, self.eps
        )
