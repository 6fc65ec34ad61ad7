"""Layers in training: float weights and biases, and what they are rounded to."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgeq.ops.base import TorchTensor
from edgeq.quantize import qparams
from edgeq.quantize.training.scales import LearnedScale
from edgeq.torch_executor.fake_quant import fake_quantize, straight_through_round


class FoldedLayer(nn.Module):
    """Weights and bias of a layer, rounded in every pass.

    Attributes:
        bits: Of the weights: 4 or 8; `code_bits` is the same in the state.
        weight: Float weights, output channels on axis 0.
        bias: Float bias, shape (channels,).
        scale: Step sizes of the weights, shape (channels,).
    """

    def __init__(self, weight: TorchTensor, bias: TorchTensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("code_bits", torch.tensor(bits))
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(bias.clone())
        limit = qparams.weight_limit(bits)
        largest = weight.flatten(1).abs().amax(1) / limit
        self.scale = LearnedScale(torch.where(largest > 0, largest, 1.0))

    def folded(self) -> tuple[TorchTensor, TorchTensor]:
        """The float weights and bias that are rounded."""
        return self.weight, self.bias

    def restart(self, weight: TorchTensor, bias: TorchTensor, scale: TorchTensor, bits: int) -> None:
        """Takes other weights, bias and step sizes (of the folded layer)."""
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)
        self.scale.restart(scale)
        self.bits = bits
        self.code_bits.fill_(bits)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self.bits = int(self.code_bits)

    def normalises(self) -> bool:
        """Whether this pass takes the statistics of its batch, so that `finish` must follow the product."""
        return False

    def finish(self, y: TorchTensor) -> TorchTensor:
        """What follows the product with the rounded weights; only where `normalises`."""
        return y

    def effective_scale(self, bias: TorchTensor, scale_in: TorchTensor, scale_out: TorchTensor) -> TorchTensor:
        """The step sizes with the floors of `qparams.weight_scales`, which keep every accumulator within 32 bits."""
        scale_in, scale_out = scale_in.detach(), scale_out.detach()
        floor = bias.detach().abs() * ((1 + 2.0**-20) / qparams.BIAS_LIMIT) / scale_in
        least = (scale_out / scale_in * 2.0**-32).clamp_min(qparams.SMALLEST_WEIGHT_SCALE)
        return torch.maximum(self.scale(), torch.maximum(floor, least))

    def forward(self, scale_in: TorchTensor, scale_out: TorchTensor) -> tuple[TorchTensor, TorchTensor]:
        """Returns the rounded weights and the bias rounded to scale_in * scale of the weights."""
        weight, bias = self.folded()
        scale = self.effective_scale(bias, scale_in, scale_out)
        limit = qparams.weight_limit(self.bits)
        rounded = fake_quantize(weight, scale, 0, -limit, limit, axis=0)
        step = (scale_in * scale).detach()
        return rounded, straight_through_round(bias / step) * step
