"""How far one tensor is from another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Floats


def sqnr_db(reference: ArrayLike, quantized: ArrayLike) -> float:
    """Signal to quantization noise ratio, 10 log10(sum r^2 / sum (r - q)^2), in decibels, over all elements.

    Args:
        reference: The exact values, any shape.
        quantized: The approximate values, the same shape.

    Returns:
        The ratio; inf where both are equal, -inf where the reference is zero and the other is not.

    Raises:
        ValueError: If the tensors are empty, of different shapes, or not finite.
    """
    exact, other = _checked_tensors(reference, quantized)
    # Dividing by the largest magnitude keeps the squares of any float64 from overflowing or vanishing.
    unit = max(float(np.abs(exact).max()), float(np.abs(other).max())) or 1.0
    signal = float(np.square(exact / unit).sum())
    noise = float(np.square(exact / unit - other / unit).sum())
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def cosine_similarity(reference: ArrayLike, quantized: ArrayLike) -> float:
    """Cosine of the angle between two tensors, taken as vectors.

    Args:
        reference: The exact values, any shape.
        quantized: The approximate values, the same shape.

    Returns:
        From -1 to 1; 1 where both are zero, 0 where one is.

    Raises:
        ValueError: If the tensors are empty, of different shapes, or not finite.
    """
    exact, other = _checked_tensors(reference, quantized)
    largest = [float(np.abs(one).max()) for one in (exact, other)]
    if 0.0 in largest:
        return 1.0 if largest == [0.0, 0.0] else 0.0
    first, second = (exact / largest[0]).ravel(), (other / largest[1]).ravel()
    cosine = float(first @ second) / math.sqrt(float(first @ first) * float(second @ second))
    return min(1.0, max(-1.0, cosine))


def largest_error_steps(reference: ArrayLike, quantized: ArrayLike, scale: float) -> float:
    """The largest absolute difference, in steps of the quantized tensor's scale.

    Args:
        reference: The exact values, any shape.
        quantized: The dequantized values, the same shape.
        scale: Of the quantized tensor, above 0.

    Raises:
        ValueError: If the tensors are empty, of different shapes, or not finite, or the scale is not above 0.
    """
    exact, other = _checked_tensors(reference, quantized)
    if not (math.isfinite(scale) and scale > 0.0):
        raise ValueError(f"scale must be finite and above 0, not {scale}.")
    return float(np.abs(exact - other).max()) / scale


def _checked_tensors(reference: ArrayLike, quantized: ArrayLike) -> tuple[Floats, Floats]:
    exact = np.asarray(reference, dtype=np.float64)
    other = np.asarray(quantized, dtype=np.float64)
    if exact.shape != other.shape or exact.size == 0:
        raise ValueError(
            f"The tensors must have one shape and hold values, not {exact.shape} and {other.shape}."
        )
    if not (np.isfinite(exact).all() and np.isfinite(other).all()):
        raise ValueError("The tensors must be finite.")
    return exact, other
