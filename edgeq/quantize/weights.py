"""Weights to integers: the range of each output channel, scales with their floors, codes and bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import QuantizationError
from edgeq.ir import QuantParams, Tensor
from edgeq.ir.tensor import Array
from edgeq.quantize import qparams

Ranges = npt.NDArray[np.float64]


def minmax_ranges(flat: Array, bits: int) -> Ranges:
    """The largest magnitude of each channel. A moving average over a constant seen once is the same.

    Args:
        flat: Weights, shape (channels, taps).
        bits: 4 or 8.
    """
    largest: Ranges = np.abs(flat).max(axis=1, initial=0.0).astype(np.float64)
    return largest


def mse_ranges(flat: Array, bits: int) -> Ranges:
    """The range of each channel with the least squared rounding and clipping error, among 71 shares of its maximum."""
    largest = minmax_ranges(flat, bits)
    limit = qparams.weight_limit(bits)
    wide = flat.astype(np.float64)
    found: Ranges = largest.copy()
    best = np.full(largest.shape, np.inf)
    for share in np.linspace(1.0, 0.3, 71):
        step = np.where(largest > 0, share * largest / limit, 1.0)[:, None]
        error = ((np.clip(np.rint(wide / step), -limit, limit) * step - wide) ** 2).sum(axis=1)
        better = error < best
        best[better], found[better] = error[better], share * largest[better]
    return found


WEIGHT_OBSERVERS: dict[str, Callable[[Array, int], Ranges]] = {
    "minmax": minmax_ranges,
    "moving-average": minmax_ranges,
    "mse": mse_ranges,
}
"""How the range of a weight channel is chosen, by the name that `weight_observer` takes."""


def weight_ranges(weights: Array, bits: int, observer: str) -> Ranges:
    """Returns the largest magnitude to represent for each output channel (axis 0).

    Raises:
        QuantizationError: If no weight observer has that name, or a weight is not finite.
    """
    if observer not in WEIGHT_OBSERVERS:
        raise QuantizationError(
            f"{observer!r} is not a weight observer; choose one of {', '.join(sorted(WEIGHT_OBSERVERS))}."
        )
    if not np.isfinite(weights).all():
        raise QuantizationError("its weights hold NaN or infinite values; the float model itself is broken there")
    return WEIGHT_OBSERVERS[observer](weights.reshape(weights.shape[0], -1), bits)


def quantize_layer(
    weights: Array,
    bias: Array | None,
    bits: int,
    ranges: Ranges,
    x: QuantParams,
    y: QuantParams,
    names: tuple[str, str],
) -> tuple[Tensor, Tensor | None]:
    """Quantizes a layer's weights and bias so that no accumulator leaves 32 bits.

    Args:
        weights: float32, output channels on axis 0.
        bias: float32, shape (channels,), or None.
        bits: Of the weights.
        ranges: From `weight_ranges`.
        x: The layer's input quantization.
        y: Its output quantization.
        names: Of the weight and the bias tensor.

    Returns:
        The constants: int8 weights with per-channel scales, and int32 bias (None without one).
    """
    scales = qparams.weight_scales(ranges, bits, float(x.scale), float(y.scale), bias)
    codes, scales = limit_products(qparams.quantize_weights(weights, scales, bits), weights, scales, bits, x)
    weight_tensor = Tensor.constant(names[0], codes, per_channel(scales, bits))
    if bias is None:
        return weight_tensor, None
    return weight_tensor, bias_tensor(names[1], bias, x, scales)


def limit_products(
    codes: npt.NDArray[np.int8],
    weights: Array,
    scales: npt.NDArray[np.float32],
    bits: int,
    x: QuantParams,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Keeps each channel's sum of products within 30 bits: where it is not, rounds anew with wider steps.

    Args:
        codes: Of the weights, output channels on axis 0.
        weights: Real, the same shape.
        scales: Shape (channels,).
        bits: Of the weights.
        x: The layer's input quantization.

    Returns:
        Codes and scales; the arguments are not changed.
    """
    codes, scales = codes.copy(), scales.copy()
    largest_input = max(x.qmax - int(x.zero_point), int(x.zero_point) - x.qmin)
    while True:
        products = largest_input * np.abs(codes.reshape(len(codes), -1).astype(np.int64)).sum(axis=1)
        over = products >= qparams.BIAS_LIMIT
        if not over.any():
            return codes, scales
        scales[over] *= np.float32(1.1) * (products[over] / qparams.BIAS_LIMIT).astype(np.float32)
        codes[over] = qparams.quantize_weights(weights[over], scales[over], bits)


def bias_tensor(name: str, bias: Array, x: QuantParams, scales: Array) -> Tensor:
    """Rounds a real bias with the scale that the layer's input and weights give it.

    Args:
        name: Of the tensor.
        bias: Real, shape (channels,).
        x: The layer's input quantization.
        scales: Of its weights, float32, shape (channels,) or ().

    Returns:
        The int32 constant with per-channel scales.
    """
    scale = np.broadcast_to(np.float32(x.scale) * scales, bias.shape).astype(np.float32)
    return Tensor.constant(name, qparams.quantize_bias(bias, scale.astype(np.float64)), per_channel(scale, 32))


def per_channel(scales: npt.NDArray[np.float32], bits: int) -> QuantParams:
    """Returns the quantization of a constant by its axis 0, with zero points of 0."""
    return QuantParams(scales, np.zeros(scales.shape, dtype=np.int32), bits, axis=0)


def sqnr_db(reference: npt.NDArray[Any], approximation: npt.NDArray[Any]) -> float | None:
    """Signal-to-quantization-noise ratio in dB, 10 log10(sum r^2 / sum (r - a)^2); None without noise or signal."""
    signal = float((reference.astype(np.float64) ** 2).sum())
    noise = float(((reference.astype(np.float64) - approximation.astype(np.float64)) ** 2).sum())
    return None if signal == 0 or noise == 0 else 10 * float(np.log10(signal / noise))
