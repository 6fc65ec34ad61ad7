"""Scales and zero points from ranges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import QuantizationError
from edgeq.ir import QuantParams
from edgeq.ops.base import dequantize, quantize
from edgeq.quantize import qparams
from edgeq.quantize.weights import WEIGHT_OBSERVERS, quantize_layer, weight_ranges

finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(a=finite, b=finite, bits=st.sampled_from([4, 8]))
def test_a_range_is_covered_within_a_step_and_zero_is_exact(a: float, b: float, bits: int) -> None:
    low, high = min(a, b), max(a, b)
    quant = qparams.activation_params(low, high, bits)
    assert quant.qmin <= int(quant.zero_point) <= quant.qmax
    zero = quantize(np.zeros(1, np.float32), quant)
    assert dequantize(zero, quant)[0] == 0.0
    first = (quant.qmin - int(quant.zero_point)) * float(quant.scale)
    last = (quant.qmax - int(quant.zero_point)) * float(quant.scale)
    assert first <= min(low, 0.0) + 0.51 * float(quant.scale)
    assert last >= max(high, 0.0) - 0.51 * float(quant.scale)


@pytest.mark.parametrize(
    ("low", "high", "bits", "scale", "zero"),
    [
        (0.0, 6.0, 8, 6 / 255, -128),
        (-1.0, 1.04, 8, 2.04 / 255, -3),
        (0.5, 2.0, 8, 2 / 255, -128),
        (-3.0, -1.0, 8, 3 / 255, 127),
        (0.0, 15.0, 4, 1.0, -8),
        (-7.0, 8.0, 4, 1.0, -1),
        (0.0, 0.0, 8, 1.0, 0),
    ],
)
def test_known_ranges(low: float, high: float, bits: int, scale: float, zero: int) -> None:
    quant = qparams.activation_params(low, high, bits)
    assert float(quant.scale) == np.float32(scale)
    assert int(quant.zero_point) == zero
    assert quant.bits == bits


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1), (0, np.inf), (-np.inf, 0), (2, 1), (-1e39, 1e42)])
def test_impossible_ranges(low: float, high: float) -> None:
    with pytest.raises(QuantizationError):
        qparams.activation_params(low, high, 8)


def test_tiny_ranges_keep_a_normal_scale() -> None:
    assert float(qparams.activation_params(0, 1e-44, 8).scale) == 2.0**-60


@pytest.mark.parametrize(
    ("low", "high", "bits", "scale", "zero"),
    [(0, 1, 8, 1 / 256, -128), (-1, 1, 8, 1 / 128, 0), (0, 1, 4, 1 / 16, -8), (-1, 1, 4, 1 / 8, 0)],
)
def test_fixed_ranges(low: float, high: float, bits: int, scale: float, zero: int) -> None:
    quant = qparams.fixed_params(low, high, bits)
    assert (float(quant.scale), int(quant.zero_point), quant.bits) == (scale, zero, bits)


X = QuantParams.per_tensor(0.02, -128)
Y = QuantParams.per_tensor(0.05, 3)


def layer(weights: np.ndarray, bias: np.ndarray | None, bits: int = 8, x: QuantParams = X, y: QuantParams = Y):
    ranges = weight_ranges(weights, bits, "minmax")
    return quantize_layer(weights, bias, bits, ranges, x, y, ("w", "b"))


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_use_their_whole_range_a_channel(bits: int, rng: np.random.Generator) -> None:
    weights = rng.normal(0, 1, (5, 3, 3, 3)).astype(np.float32) * np.array([1, 10, 0.1, 2, 3]).reshape(5, 1, 1, 1)
    codes, bias = layer(weights.astype(np.float32), None, bits)
    limit = qparams.weight_limit(bits)
    assert bias is None
    assert codes.data is not None
    np.testing.assert_array_equal(np.abs(codes.data).reshape(5, -1).max(axis=1), limit)
    assert codes.quant is not None
    assert np.abs(dequantize(codes.data, codes.quant) - weights).max() <= 0.5001 * codes.quant.scale.max()


def test_dead_channels_stay_dead_and_keep_their_bias() -> None:
    weights = np.array([[0.5, -1.0], [0.0, 0.0], [1e-30, 0.0]], np.float32)
    bias = np.array([0.1, 0.7, -3.0], np.float32)
    codes, found = layer(weights, bias)
    assert codes.data is not None
    assert found is not None
    assert found.quant is not None
    assert found.data is not None
    assert not codes.data[1].any()
    assert not codes.data[2].any()
    np.testing.assert_allclose(dequantize(found.data, found.quant), bias, atol=float(found.quant.scale[0]))
    assert np.abs(found.data).max() < 1 << 30


def test_all_channels_dead() -> None:
    codes, _ = layer(np.zeros((4, 2), np.float32), np.zeros(4, np.float32))
    assert codes.quant is not None
    np.testing.assert_array_equal(codes.quant.scale, 1.0)


@given(
    exponent=st.integers(-30, 10),
    bias=st.floats(-1e6, 1e6, width=32),
    x_scale=st.integers(-40, 10),
    y_scale=st.integers(-40, 10),
    taps=st.sampled_from([1, 9, 4608, 60_000]),
    bits=st.sampled_from([4, 8]),
)
def test_accumulators_stay_within_32_bits(
    exponent: int, bias: float, x_scale: int, y_scale: int, taps: int, bits: int
) -> None:
    weights = np.full((2, taps), 2.0**exponent, np.float32)
    x, y = QuantParams.per_tensor(2.0**x_scale, -128), QuantParams.per_tensor(2.0**y_scale, 0)
    codes, found = layer(weights, np.array([bias, 0], np.float32), bits, x, y)
    assert codes.data is not None
    assert found is not None
    assert found.data is not None
    worst = 255 * np.abs(codes.data.astype(np.int64)).sum(axis=1) + np.abs(found.data.astype(np.int64))
    assert worst.max() < 1 << 31
    assert found.quant is not None
    # A bias is off by half a step at most, whatever floor its scale needed.
    real = found.data.astype(np.float64) * found.quant.scale
    assert abs(real[0] - bias) <= max(0.51 * float(found.quant.scale[0]), 1e-6 * abs(bias))


def test_mse_ranges_lower_the_error(rng: np.random.Generator) -> None:
    weights = rng.standard_t(4, (16, 200)).astype(np.float32)

    def error(observer: str) -> float:
        ranges = weight_ranges(weights, 4, observer)
        codes, _ = quantize_layer(weights, None, 4, ranges, X, Y, ("w", ""))
        assert codes.data is not None
        assert codes.quant is not None
        return float(((dequantize(codes.data, codes.quant) - weights) ** 2).mean())

    assert error("mse") < 0.8 * error("minmax")
    assert set(WEIGHT_OBSERVERS) == {"minmax", "moving-average", "mse"}


def test_weight_errors() -> None:
    with pytest.raises(QuantizationError, match="weight observer"):
        weight_ranges(np.ones((1, 1), np.float32), 8, "histogram")
    with pytest.raises(QuantizationError, match="NaN"):
        weight_ranges(np.array([[np.nan]], np.float32), 8, "minmax")
