"""Rounding that gradients pass: the straight-through estimator, and learned step sizes (LSQ)."""

from __future__ import annotations

import math
from typing import Any

import torch

from edgeq.ops.base import NO_CLAMP, Clamp, TorchTensor, torch_clamp

EDGE = 2.0**-16
"""Values that lie beyond the outermost code by less than this share of a step count as on it."""


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


class _FakeQuantizeTensor(torch.autograd.Function):
    """As `_FakeQuantize` with one scale, in the few passes over memory that a CPU has time for.

    It keeps x and its own result, which the next operator keeps too, instead of two tensors of its own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: TorchTensor, scale: TorchTensor, low: int, high: int, clamp: Clamp, factor: float
    ) -> TorchTensor:
        y = x / scale if clamp == NO_CLAMP else torch.clamp(x, *clamp).div_(scale)
        y.round_().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x, y, scale)
        ctx.bounds, ctx.clamp, ctx.factor = (low, high), clamp, factor
        return y

    @staticmethod
    def backward(ctx: Any, gradient: TorchTensor) -> tuple[TorchTensor | None, ...]:
        x, y, scale = ctx.saved_tensors
        step, clamp = float(scale), ctx.clamp
        low, high = ctx.bounds[0] * step, ctx.bounds[1] * step
        # Bounds are open here and closed in the definition; float32 cannot tell such differences from its own.
        open_low, open_high = low - step * EDGE, high + step * EDGE
        clipped_at = max(clamp[0], open_low), min(clamp[1], open_high)
        of_x = torch.ops.aten.hardtanh_backward(gradient, x, *clipped_at)
        of_scale = None
        if ctx.needs_input_grad[1]:
            # g * (codes - steps) where nothing is clipped, g * codes elsewhere: times the scale, g * y - g * x.
            if clamp[0] <= open_low and clamp[1] >= open_high:
                seen, passed = x, of_x
            else:
                seen = torch.clamp(x, *clamp)
                passed = torch.ops.aten.hardtanh_backward(gradient, seen, open_low, open_high)
            total = _inner(gradient, y) - _inner(passed, seen)
            of_scale = (total * (ctx.factor / step)).reshape(scale.shape)
        return of_x, of_scale, None, None, None, None


def _inner(a: TorchTensor, b: TorchTensor) -> TorchTensor:
    """The sum of the products of two tensors of one shape."""
    if a.ndim == 4 and a.stride() == b.stride() and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


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
    clamp: Clamp = NO_CLAMP,
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
        clamp: An activation function that x goes through first; cheaper here than before.
    """
    if elements is None:
        groups = x.shape[0 if axis is None else axis] if x.ndim else 1
        elements = x.numel() // max(groups, 1)
    low, high = qmin - zero_point, qmax - zero_point
    factor = lsq_gradient_scale(elements, max(-low, high))
    # Elsewhere the scale would have to come from the device first.
    if axis is None and x.device.type == "cpu":
        return _FakeQuantizeTensor.apply(x, scale, low, high, clamp, factor)
    return _FakeQuantize.apply(torch_clamp(x, clamp), scale, low, high, axis, factor)
