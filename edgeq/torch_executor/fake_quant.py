"""Rounding that gradients pass: the straight-through estimator, and learned step sizes (LSQ)."""

from __future__ import annotations

import math
from typing import Any

import torch

from edgeq.ops.base import TorchTensor


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: TorchTensor) -> TorchTensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: TorchTensor) -> TorchTensor:
        return gradient


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: TorchTensor, scale: TorchTensor, low: int, high: int, axis: int | None, factor: float
    ) -> TorchTensor:
        shaped = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        steps = x / shaped
        codes = steps.round().clamp_(low, high)
        ctx.save_for_backward(steps, codes, shaped)
        ctx.bounds, ctx.factor, ctx.scale_shape = (low, high), factor, scale.shape
        return codes * shaped

    @staticmethod
    def backward(ctx: Any, gradient: TorchTensor) -> tuple[TorchTensor | None, ...]:
        steps, codes, shaped = ctx.saved_tensors
        low, high = ctx.bounds
        of_x = torch.where((steps >= low) & (steps <= high), gradient, 0.0)
        of_scale = None
        if ctx.needs_input_grad[1]:
            # g * (codes - steps) where nothing is clipped, g * codes (a bound) elsewhere.
            slope = (gradient * codes).addcmul_(of_x, steps, value=-1)
            axes = [i for i, size in enumerate(shaped.shape) if size == 1]
            total = slope.sum() if shaped.ndim == 0 else slope.sum(axes, keepdim=True)
            of_scale = (total * ctx.factor).reshape(ctx.scale_shape)
        return of_x, of_scale, None, None, None, None


def straight_through_round(x: TorchTensor) -> TorchTensor:
    """Rounds to the nearest integer, ties to even; the gradient is that of the identity (Bengio et al. 2013)."""
    return _RoundStraightThrough.apply(x)


def lsq_gradient_scale(elements: int, levels: int) -> float:
    """1 / sqrt(elements * levels): brings a step size's gradient to the size of a weight's (Esser et al. 2019, 2.2).

    Args:
        elements: How many numbers share the step size: the weights of a channel, the features of an activation.
        levels: The largest number of steps away from zero that a code stands for.
    """
    return 1.0 / math.sqrt(max(elements, 1) * levels)


def fake_quantize(
    x: TorchTensor,
    scale: TorchTensor,
    zero_point: int,
    qmin: int,
    qmax: int,
    *,
    axis: int | None = None,
    elements: int | None = None,
) -> TorchTensor:
    """Returns the values that the codes of x stand for: (clamp(rne(x / scale) + z) - z) * scale.

    Gradients, with v = x / scale (Esser et al. 2019, arXiv 1902.08153, equations 3 and 5):

    - to x: 1 where v lies within the bounds, else 0;
    - to scale: rne(v) - v within the bounds, else the bound; summed and times `lsq_gradient_scale`.

    Args:
        x: Real values.
        scale: Positive; shape () or, with `axis`, (channels,). Gets a gradient when it requires one.
        zero_point: The code of zero; 0 for weights.
        qmin: The smallest code: -128 or -8; of weights -127 or -7.
        qmax: The largest code: 127 or 7.
        axis: The axis of x that has the channels, for a scale a channel.
        elements: For the scale of the gradient; without it the elements of x that share a scale, of one sample when
            the scale is one number (axis 0 is taken for the batch then).
    """
    if elements is None:
        groups = x.shape[0 if axis is None else axis] if x.ndim else 1
        elements = x.numel() // max(groups, 1)
    low, high = qmin - zero_point, qmax - zero_point
    return _FakeQuantize.apply(x, scale, low, high, axis, lsq_gradient_scale(elements, max(-low, high)))
