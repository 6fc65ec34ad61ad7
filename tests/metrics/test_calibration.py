from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics


def plain_ece(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """The definition with plain loops."""
    total = 0.0
    for m in range(1, bins + 1):
        members = [
            i for i, c in enumerate(confidence) if (m - 1) / bins < c <= m / bins or (m == 1 and c == 0)
        ]
        if members:
            accuracy = sum(bool(correct[i]) for i in members) / len(members)
            mean = sum(float(confidence[i]) for i in members) / len(members)
            total += len(members) / len(confidence) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_ece_equals_the_definition(n: int, bins: int) -> None:
    rng = np.random.default_rng(n * 1000 + bins)
    confidence, correct = rng.random(n), rng.random(n) < 0.7
    assert metrics.expected_calibration_error(confidence, correct, bins) == pytest.approx(
        plain_ece(confidence, correct, bins), abs=1e-12
    )


@pytest.mark.parametrize("bins", [3, 7, 10, 15, 20])
def test_edges_belong_to_the_lower_bin(bins: int) -> None:
    edges = np.arange(bins + 1) / bins
    # 0 and the first edge share the first bin; every other edge closes its own.
    filled = metrics.reliability_bins(edges, np.ones(bins + 1), bins)
    assert [one.count for one in filled] == [2] + [1] * (bins - 1)


def test_reliability_equals_scikit_learn() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(3)
    confidence, correct = rng.random(2000), rng.random(2000) < 0.5
    accuracy, mean = calibration.calibration_curve(correct, confidence, n_bins=15)
    filled = [one for one in metrics.reliability_bins(confidence, correct) if one.count]
    np.testing.assert_allclose([one.accuracy for one in filled], accuracy, atol=1e-12)
    np.testing.assert_allclose([one.confidence for one in filled], mean, atol=1e-12)


def test_ece_and_mce_by_hand() -> None:
    # Of ten bins, 0.85 and 0.9 share (0.8, 0.9] (one right: accuracy 0.5, confidence 0.875); 0.25 is
    # alone and wrong.
    confidence, correct = [0.85, 0.9, 0.25], [True, False, False]
    assert metrics.expected_calibration_error(confidence, correct, 10) == pytest.approx(
        2 / 3 * 0.375 + 1 / 3 * 0.25
    )
    assert metrics.maximum_calibration_error(confidence, correct, 10) == pytest.approx(0.375)


def test_degenerate_inputs() -> None:
    assert metrics.expected_calibration_error([1.0], [True]) == 0.0
    assert metrics.expected_calibration_error([1.0], [False]) == 1.0
    assert metrics.expected_calibration_error([0.0], [False]) == 0.0
    assert metrics.maximum_calibration_error([0.5] * 4, [1, 0, 1, 0]) == 0.0


def test_empty_bins_hold_no_number() -> None:
    first = metrics.reliability_bins([0.9], [True])[0]
    assert (first.count, first.confidence, first.accuracy, first.gap) == (0, None, None, 0.0)


def test_bins_partition_the_samples() -> None:
    confidence = np.random.default_rng(0).random(999)
    filled = metrics.reliability_bins(confidence, confidence > 0.5)
    assert sum(one.count for one in filled) == 999
    assert (filled[0].lower, filled[-1].upper) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("confidence", "correct", "bins"),
    [
        ([], [], 15),
        ([0.5], [True, False], 15),
        ([1.0001], [True], 15),
        ([-0.1], [True], 15),
        ([np.nan], [True], 15),
        ([0.5], [2], 15),
        ([[0.5]], [[True]], 15),
        ([0.5], [True], 0),
    ],
)
def test_senseless_inputs(confidence: list[float], correct: list[object], bins: int) -> None:
    for function in (metrics.expected_calibration_error, metrics.maximum_calibration_error):
        with pytest.raises(ValueError, match="must"):
            function(confidence, correct, bins)
