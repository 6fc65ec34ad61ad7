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


def test_errors_equal_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(8)
    for n, classes in ((1, 2), (7, 3), (500, 10)):
        probabilities = metrics.softmax(rng.standard_normal((n, classes)) * 2).astype(np.float32).astype(np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        labels = rng.integers(0, classes, n)
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        for norm, own in (("l1", metrics.expected_calibration_error), ("max", metrics.maximum_calibration_error)):
            expected = oracle.multiclass_calibration_error(
                torch.from_numpy(probabilities), torch.from_numpy(labels), classes, n_bins=15, norm=norm
            )
            assert own(confidence, correct) == pytest.approx(float(expected), abs=1e-6)


def test_adaptive_error_by_hand() -> None:
    # Two bins of two: (0.2, 0.4) with one right, (0.6, 0.9) with both right.
    confidence, correct = [0.9, 0.2, 0.6, 0.4], [True, False, True, True]
    assert metrics.adaptive_calibration_error(confidence, correct, 2) == pytest.approx(0.5 * 0.2 + 0.5 * 0.25)
    assert metrics.adaptive_calibration_error([0.7], [True], 15) == pytest.approx(0.3)
    # One bin: the distance of the means, whatever the order.
    assert metrics.adaptive_calibration_error(confidence, correct, 1) == pytest.approx(abs(0.75 - 0.525))


def test_adaptive_error_with_ties_is_that_of_the_input_order() -> None:
    assert metrics.adaptive_calibration_error([0.5] * 4, [True, True, False, False], 2) == pytest.approx(0.5)


@pytest.mark.parametrize("bins", [1, 15])
def test_classwise_error_is_the_mean_of_binary_ones(bins: int) -> None:
    rng = np.random.default_rng(3)
    probabilities, labels = metrics.softmax(rng.standard_normal((200, 4))), rng.integers(0, 4, 200)
    expected = [metrics.expected_calibration_error(probabilities[:, k], labels == k, bins) for k in range(4)]
    assert metrics.classwise_calibration_error(probabilities, labels, bins) == pytest.approx(np.mean(expected))


def test_debiased_error_is_unbiased_where_the_plain_one_is_not() -> None:
    # A calibrated model: the squared error of each draw is about 0, the plain one is not.
    rng = np.random.default_rng(6)
    plain, debiased = [], []
    for _ in range(300):
        confidence = rng.random(150)
        correct = rng.random(150) < confidence
        plain.append(metrics.adaptive_calibration_error(confidence, correct))
        debiased.append(metrics.debiased_calibration_error(confidence, correct))
    assert np.mean(plain) > 0.09
    assert np.mean(debiased) < 0.05
    assert np.mean(np.array(debiased) == 0.0) > 0.3


def test_debiased_error_by_hand() -> None:
    # One bin of four, three right at a confidence of 0.35: 0.4^2 less 0.75 * 0.25 / 3.
    expected = np.sqrt(0.4**2 - 0.75 * 0.25 / 3)
    assert metrics.debiased_calibration_error([0.35] * 4, [True, True, True, False], 1) == pytest.approx(expected)
    assert metrics.debiased_calibration_error([0.35], [True], 1) == 0.0  # one sample says nothing of its variance


@pytest.mark.parametrize("correct", [True, False])
def test_degenerate_answers(correct: bool) -> None:
    confidence, hits = np.full(20, 0.8), np.full(20, correct)
    expected = 0.2 if correct else 0.8
    for function in (
        metrics.expected_calibration_error, metrics.maximum_calibration_error, metrics.adaptive_calibration_error,
        metrics.debiased_calibration_error,
    ):
        assert function(confidence, hits) == pytest.approx(expected)
