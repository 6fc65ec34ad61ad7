"""The one place where a range of real values becomes a scale and a zero point."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import QuantizationError
from edgeq.ir import QuantParams

BIAS_LIMIT = 1 << 30
"""Bias magnitudes stay below this, so that an accumulator has as much room again for its products."""

SMALLEST_ACTIVATION_SCALE = 2.0**-60
"""Floor of an activation's scale: products with a weight's scale stay normal float32 numbers."""

SMALLEST_WEIGHT_SCALE = 2.0**-60
"""Floor of a weight's scale, for the same reason."""


def weight_limit(bits: int) -> int:
    """The largest weight code, 127 or 7; the smallest is its negative."""
    return (1 << (bits - 1)) - 1


def activation_params(low: float, high: float, bits: int) -> QuantParams:
    """Asymmetric per-tensor parameters of a range.

    The range is extended to include zero, so that zero has a code of its own (padding, ReLU). A range of no width
    (only zeros were seen) gets scale 1 and zero point 0.

    Args:
        low: Smallest real value to represent.
        high: Largest real value to represent.
        bits: 4 or 8.

    Raises:
        QuantizationError: If a bound is not finite or low > high.
    """
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        raise QuantizationError(f"[{low}, {high}] is not a range that can be quantized; its bounds must be finite.")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    qmin, qmax = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if high == low:
        return QuantParams.per_tensor(1.0, 0, bits)
    step = max((high - low) / (qmax - qmin), SMALLEST_ACTIVATION_SCALE)
    if step > float(np.finfo(np.float32).max):
        raise QuantizationError(f"[{low}, {high}] is too wide to be quantized in float32.")
    scale = np.float32(step)
    zero_point = int(np.clip(np.rint(qmin - low / float(scale)), qmin, qmax))
    return QuantParams.per_tensor(float(scale), zero_point, bits)


def fixed_params(low: float, high: float, bits: int) -> QuantParams:
    """Parameters of an operator with a fixed range: code qmin is `low`, code qmax + 1 would be `high`.

    With 8 bits a sigmoid, (0, 1), gets scale 1/256 and zero point -128; tanh, (-1, 1), gets 1/128 and 0.
    """
    scale = (high - low) / (1 << bits)
    return QuantParams.per_tensor(scale, round(-(1 << (bits - 1)) - low / scale), bits)


def representable(quant: QuantParams) -> tuple[float, float]:
    """The smallest and the largest real value that a per-tensor quantization holds."""
    low, high = (float((code - quant.zero_point) * quant.scale) for code in (quant.qmin, quant.qmax))
    return low, high


def weight_scales(
    ranges: npt.NDArray[Any],
    bits: int,
    input_scale: float,
    output_scale: float,
    bias: npt.NDArray[Any] | None,
) -> npt.NDArray[np.float32]:
    """Symmetric scales, one an output channel, with floors that keep every integer within 32 bits.

    - range / 127 (or / 7) where the channel has weights;
    - at least |bias| / (s_x * 2^30), so that the bias fits (weights that small beside their bias lose precision that
      the output could not show);
    - at least 2^-32 * s_y / s_x: below it no accumulator of 32 bits moves the output by half a step;
    - a dead channel (all weights zero) gets the median scale of the live ones, so that its bias is as fine as theirs;
      1 when every channel is dead.

    Args:
        ranges: Largest weight magnitude to represent, shape (channels,).
        bits: 4 or 8.
        input_scale: s_x.
        output_scale: s_y.
        bias: Real bias, shape (channels,), or None.
    """
    scales = np.asarray(ranges, dtype=np.float64) / weight_limit(bits)
    live = scales > 0
    scales[~live] = float(np.median(scales[live])) if live.any() else 1.0
    floor = np.full(scales.shape, max(SMALLEST_WEIGHT_SCALE, output_scale / input_scale * 2.0**-32))
    if bias is not None:
        # One part in 2^20 more than needed, so that rounding the scale to float32 does not cross the limit.
        floor = np.maximum(floor, np.abs(bias.astype(np.float64)) / input_scale / BIAS_LIMIT * (1 + 2.0**-20))
    result: npt.NDArray[np.float32] = np.maximum(scales, floor).astype(np.float32)
    return result


def quantize_weights(weights: npt.NDArray[Any], scales: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.int8]:
    """clamp(rne(w / s)) to [-127, 127] or [-7, 7]; channels on axis 0."""
    limit = weight_limit(bits)
    wide = scales.astype(np.float64).reshape(-1, *[1] * (weights.ndim - 1))
    return np.clip(np.rint(weights.astype(np.float64) / wide), -limit, limit).astype(np.int8)


def quantize_bias(bias: npt.NDArray[Any], scale: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """rne(b / (s_x * s_w)) as int32, saturated at 2^30 - 1; shape (channels,)."""
    codes = np.rint(bias.astype(np.float64) / scale)
    return np.clip(codes, -(BIAS_LIMIT - 1), BIAS_LIMIT - 1).astype(np.int32)
