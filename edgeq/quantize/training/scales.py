"""Learned step sizes, and what rounds activations with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgeq.ir import QuantParams
from edgeq.ops.base import NO_CLAMP, Clamp, TorchTensor
from edgeq.torch_executor.fake_quant import fake_quantize, straight_through_round

SMALLEST_RATIO = 2.0**-8
"""A scale never falls below this share of the one it started from."""

TIE = 2.0**-12
"""Averages of codes are taken to be multiples of this share of a step: float32 is off by a thirtieth of it at most."""


class _Ratio(torch.autograd.Function):
    """max(x, SMALLEST_RATIO), whose gradient is passed on times a factor."""

    @staticmethod
    def forward(ctx: Any, x: TorchTensor, factor: TorchTensor) -> TorchTensor:
        ctx.save_for_backward(factor)
        return x.clamp_min(SMALLEST_RATIO)

    @staticmethod
    def backward(ctx: Any, gradient: TorchTensor) -> tuple[TorchTensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class LearnedScale(nn.Module):
    """Step sizes as a learned ratio to those that training started from.

    What an optimizer sees is a number near 1, whatever the size of the step: a step of Adam changes every scale by the
    same share. The gradient of the ratio is the one that makes a step of SGD change the scale by the same share as if
    the scale itself were learned, as in LSQ (Esser et al. 2019, arXiv 1902.08153): divided by the square of the start.

    Attributes:
        start: The step sizes where training began; shape () or (channels,).
        ratio: What is learned; the scale is start * ratio.
    """

    def __init__(self, start: TorchTensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())
        self.ratio = nn.Parameter(torch.ones_like(start))

    def restart(self, start: TorchTensor) -> None:
        """Begins anew from other step sizes."""
        with torch.no_grad():
            self.start.copy_(start)
            self.ratio.fill_(1.0)

    def forward(self) -> TorchTensor:
        """The step sizes, positive."""
        return self.start * _Ratio.apply(self.ratio, 1.0 / self.start**2)


class FixedScale(nn.Module):
    """The step size of an operator whose range is known (sigmoid, tanh): nothing is learned."""

    def __init__(self, start: TorchTensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())

    def restart(self, start: TorchTensor) -> None:
        """Takes another step size."""
        self.start.copy_(start)

    def forward(self) -> TorchTensor:
        """The step size."""
        return self.start


class ActivationQuantizer(nn.Module):
    """Rounds the activations of one shared set: per tensor, with a fixed integer zero point.

    Attributes:
        bits: 4 or 8; `code_bits` is the same in the state.
        scale: The step size.
        zero_point: The code of zero.
    """

    def __init__(self, bits: int, fixed: QuantParams | None = None) -> None:
        super().__init__()
        self.bits = bits
        one = torch.ones(()) if fixed is None else torch.tensor(float(fixed.scale))
        self.scale: LearnedScale | FixedScale = LearnedScale(one) if fixed is None else FixedScale(one)
        self.register_buffer("code_bits", torch.tensor(bits))
        self.register_buffer("zero_point", torch.tensor(0 if fixed is None else int(fixed.zero_point)))
        self._zero = int(self.zero_point)

    def restart(self, quant: QuantParams) -> None:
        """Takes the parameters of a quantized tensor."""
        self.bits = quant.bits
        self.code_bits.fill_(quant.bits)
        self.scale.restart(torch.tensor(float(quant.scale)))
        self.zero_point.fill_(int(quant.zero_point))
        self._zero = int(quant.zero_point)

    def is_learned(self) -> bool:
        """Whether the step size is a parameter."""
        return isinstance(self.scale, LearnedScale)

    def has_negative_codes(self) -> bool:
        """Whether a code stands for a number below zero."""
        return self._zero > -(1 << (self.bits - 1))

    def forward(self, x: TorchTensor, scale: TorchTensor, clamp: Clamp = NO_CLAMP) -> TorchTensor:
        """Rounds x, after an activation function, to what codes stand for.

        Args:
            x: Real values.
            scale: `self.scale()`, made once a pass.
            clamp: The activation function.
        """
        half = 1 << (self.bits - 1)
        return fake_quantize(x, scale, self._zero, -half, half - 1, clamp=clamp)

    def average(self, x: TorchTensor, scale: TorchTensor, half_up: bool) -> TorchTensor:
        """Rounds averages of codes, half of which may lie exactly between two codes.

        The integers see those ties as they are; x / scale in float32 sees them a little off, one way or the other.

        Args:
            x: Averages of values on this quantizer's own codes.
            scale: `self.scale()`; it learns from what else it rounds.
            half_up: Whether ties go up (bilinear resizing) or to even (average pooling).
        """
        half, step = 1 << (self.bits - 1), scale.detach()
        steps = x / step
        exact = steps.detach()
        exact = exact + TIE / 2 if half_up else (exact / TIE).round() * TIE
        moved = (exact + (steps - steps.detach())).clamp(-half - self._zero, half - 1 - self._zero)
        return straight_through_round(moved) * step

    def params(self) -> QuantParams:
        """The quantization that the set has now."""
        return QuantParams.per_tensor(float(self.scale().detach()), self._zero, self.bits)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        # Python's numbers, so that a pass on a device does not wait for them.
        self.bits, self._zero = int(self.code_bits), int(self.zero_point)
