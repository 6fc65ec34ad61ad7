"""How far one tensor is from another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


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
    exact = np.asarray(reference, dtype=np.float64)
    other = np.asarray(quantized, dtype=np.float64)
    if exact.shape != other.shape or exact.size == 0:
        raise ValueError(
            f"The tensors must have one shape and hold values, not {exact.shape} and {other.shape}."
        )
    if not (np.isfinite(exact).all() and np.isfinite(other).all()):
        raise ValueError("The tensors must be finite.")
    # Dividing by the largest magnitude keeps the squares of any float64 from overflowing or vanishing.
    unit = max(float(np.abs(exact).max()), float(np.abs(other).max())) or 1.0
    signal = float(np.square(exact / unit).sum())
    noise = float(np.square(exact / unit - other / unit).sum())
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf
