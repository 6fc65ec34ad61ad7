"""Observers against torch's and against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.errors import QuantizationError
from edgeq.quantize import counting
from edgeq.quantize.observers import (
    OBSERVERS,
    HistogramObserver,
    KlObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MseObserver,
    PercentileObserver,
    StreamingHistogram,
    make_observer,
)
from edgeq.quantize.qparams import activation_params


def batches(kind: str, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (6, 4, 3, 31, 17)
    if kind == "normal":
        x = rng.normal(0.3, 2.0, shape)
    elif kind == "relu6":
        x = np.clip(rng.normal(0.5, 3.0, shape), 0, 6)
    elif kind == "heavy":
        x = rng.standard_t(2, shape)
    elif kind == "growing":
        x = rng.normal(0, 1, shape) * np.array([0.1, 0.5, 0.4, 3.0, 1.0, 8.0]).reshape(6, 1, 1, 1, 1)
    else:
        x = rng.exponential(1.0, shape) - 0.2
    return list(x.astype(np.float32))


KINDS = ["normal", "relu6", "heavy", "growing", "exponential"]


@pytest.mark.needs_torch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_histogram_observer_chooses_as_torch(kind: str, seed: int) -> None:
    torch = pytest.importorskip("torch")
    from torch.ao.quantization.observer import HistogramObserver as TorchObserver

    ours, theirs = HistogramObserver(), TorchObserver(dtype=torch.qint8, qscheme=torch.per_tensor_affine)
    for x in batches(kind, seed):
        ours.observe(x)
        theirs(torch.from_numpy(x))
    np.testing.assert_allclose(ours.seen.low, float(theirs.min_val), rtol=1e-6)
    np.testing.assert_allclose(ours.seen.counts.sum(), float(theirs.histogram.sum()), rtol=1e-5)
    low, high = theirs._non_linear_param_search()
    width = (ours.seen.high - ours.seen.low) / ours.seen.bins
    # torch sums in float32 and places the odd value in the neighbouring bin: the search may end a few bins away.
    np.testing.assert_allclose(ours.range(8), (float(low), float(high)), atol=4 * width)
    scale, zero = theirs.calculate_qparams()
    quant = activation_params(*ours.range(8), 8)
    np.testing.assert_allclose(float(quant.scale), float(scale), rtol=5e-3)
    assert abs(int(quant.zero_point) - int(zero)) <= 1


@pytest.mark.needs_torch
@pytest.mark.parametrize("kind", KINDS)
def test_moving_average_is_torchs(kind: str) -> None:
    torch = pytest.importorskip("torch")
    from torch.ao.quantization.observer import MovingAverageMinMaxObserver as TorchObserver

    ours, theirs = MovingAverageMinMaxObserver(), TorchObserver()
    for x in batches(kind, 3):
        ours.observe(x)
        theirs(torch.from_numpy(x))
    np.testing.assert_allclose(ours.range(8), (float(theirs.min_val), float(theirs.max_val)), rtol=1e-5)


def test_minmax_is_the_extremes() -> None:
    observer = MinMaxObserver()
    seen = batches("normal", 0)
    for x in seen:
        observer.observe(x)
    assert observer.range(8) == (float(np.min(seen)), float(np.max(seen)))


def test_percentile_is_numpys_within_a_bin() -> None:
    observer = PercentileObserver(99.0)
    seen = batches("heavy", 0)
    for x in seen:
        observer.observe(x)
    width = (observer.seen.high - observer.seen.low) / observer.seen.bins
    # Every growth of the range moves counts by up to a bin.
    np.testing.assert_allclose(observer.range(8), np.percentile(seen, [0.5, 99.5]), atol=3 * width)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [4, 8])
def test_mse_observer_is_no_worse_than_the_whole_range(kind: str, bits: int) -> None:
    observer = MseObserver()
    seen = np.stack(batches(kind, 0))
    for x in seen:
        observer.observe(x)

    def error(low: float, high: float) -> float:
        quant = activation_params(low, high, bits)
        codes = np.clip(np.rint(seen / quant.scale) + quant.zero_point, quant.qmin, quant.qmax)
        return float((((codes - quant.zero_point) * quant.scale - seen) ** 2).mean())

    found = error(*observer.range(bits))
    assert found <= error(float(seen.min()), float(seen.max())) * 1.02
    best = min(error(seen.min() * a, seen.max() * b) for a in np.linspace(0.1, 1, 19) for b in np.linspace(0.1, 1, 19))
    assert found <= best * 1.1


def squared_error(seen: np.ndarray, bounds: tuple[float, float], bits: int) -> float:
    quant = activation_params(*bounds, bits)
    codes = np.clip(np.rint(seen / quant.scale) + quant.zero_point, quant.qmin, quant.qmax)
    return float((((codes - quant.zero_point) * quant.scale - seen) ** 2).mean())


def test_mse_observer_finds_bounds_that_shrink_by_different_shares() -> None:
    """A long thin tail below, everything else just above zero: shrinking both bounds alike finds a poor range."""
    rng = np.random.default_rng(0)
    seen = np.concatenate([rng.uniform(0, 1, 100_000), rng.uniform(-40, 0, 3)]).astype(np.float32)
    observer = MseObserver()
    observer.observe(seen)
    low, high = observer.range(4)
    alike = min(squared_error(seen, (seen.min() * a, seen.max() * a), 4) for a in np.linspace(0.01, 1, 200))
    assert squared_error(seen, (low, high), 4) < 0.5 * alike
    assert low > -4
    assert high > 0.8


def kl_range(seen: np.ndarray, bits: int = 4) -> tuple[float, float]:
    observer = KlObserver()
    observer.observe(seen.astype(np.float32))
    return observer.range(bits)


def test_kl_observer_leaves_out_outliers_and_keeps_the_bulk() -> None:
    rng = np.random.default_rng(1)
    seen = np.concatenate([rng.normal(0, 1, 200_000), [-30.0, 45.0, 60.0]])
    low, high = kl_range(seen, 4)
    assert -8 < low < -1.5
    assert 1.5 < high < 8
    # Finer codes leave out less.
    wide_low, wide_high = kl_range(seen, 8)
    assert -30 < wide_low < low
    assert high < wide_high < 60
    # A flat distribution has nothing to leave out.
    low, high = kl_range(rng.uniform(0, 2, 200_000))
    assert low == 0.0
    assert 1.9 < high <= 2.0


def test_kl_observer_is_blind_to_zeros_and_to_units() -> None:
    rng = np.random.default_rng(2)
    positive = np.abs(rng.standard_t(3, 50_000))
    wanted = kl_range(positive)
    np.testing.assert_allclose(kl_range(np.concatenate([positive, np.zeros(400_000)])), wanted, rtol=0.02)
    np.testing.assert_allclose(kl_range(positive * 8), (wanted[0] * 8, wanted[1] * 8), rtol=1e-6)
    assert wanted[1] < positive.max()


def test_histogram_keeps_mass_and_place_when_it_grows() -> None:
    seen = StreamingHistogram(64)
    seen.add(np.full(10, 2.0, np.float32))
    assert seen.low == seen.high == 2.0
    seen.add(np.array([0.0, 4.0], np.float32))
    assert seen.counts.sum() == 12
    assert seen.counts[32] == 10
    seen.add(np.array([-4.0], np.float32))
    assert seen.counts.sum() == 13
    middles = (seen.edges()[:-1] + seen.edges()[1:]) / 2
    assert abs((seen.counts * middles).sum() / 13 - 20 / 13) < 0.1


@pytest.mark.parametrize("name", sorted(OBSERVERS))
def test_observers_of_one_value_and_of_none(name: str) -> None:
    observer = make_observer(name)
    with pytest.raises(QuantizationError, match="no values"):
        observer.range(8)
    observer.observe(np.zeros((0, 3), np.float32))
    observer.observe(np.full((2, 3), 1.5, np.float32))
    assert observer.range(8) == (1.5, 1.5)


@pytest.mark.parametrize("name", sorted(OBSERVERS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_observers_refuse_what_is_not_finite(name: str, bad: float) -> None:
    x = np.zeros(100, np.float32)
    x[37] = bad
    with pytest.raises(QuantizationError, match="NaN or infinite"):
        make_observer(name).observe(x)


@pytest.mark.parametrize("name", ["histogramm", "percentile=0", "percentile=x", "percentile=20", "minmax=3", ""])
def test_unknown_observers_are_named(name: str) -> None:
    with pytest.raises(QuantizationError, match=r"observer|number"):
        make_observer(name)


@pytest.mark.parametrize("size", [1, 7, 8, 1000, 70_001])
def test_native_counting_equals_numpy(size: int) -> None:
    native = counting._native()
    if native is None or not hasattr(native, "histogram"):
        pytest.skip("the native module is not built")
    rng = np.random.default_rng(size)
    x = rng.normal(0.1, 2.0, size).astype(np.float32)
    low, high = counting.numpy_minmax(x)
    assert tuple(native.minmax(x)) == (low, high)
    if low < high:
        np.testing.assert_array_equal(
            native.histogram(x, low, high, 2048), counting.numpy_histogram(x, low, high, 2048)
        )
    np.testing.assert_array_equal(native.histogram(x, -1.0, 1.5, 77), counting.numpy_histogram(x, -1.0, 1.5, 77))
    x[size // 2] = np.nan
    assert np.isnan(native.minmax(x)).all()


def test_numpy_histogram_puts_every_value_somewhere() -> None:
    x = np.array([-5.0, 0.0, 0.25, 0.5, 1.0, 9.0], np.float32)
    np.testing.assert_array_equal(counting.numpy_histogram(x, 0.0, 1.0, 4), [2, 1, 1, 2])
