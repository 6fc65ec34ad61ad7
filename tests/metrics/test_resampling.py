from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics


def answers(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(n), rng.random(n) < 0.6


@pytest.mark.parametrize("n", [1, 2, 50])
def test_resampled_errors_equal_those_of_the_copies(n: int) -> None:
    confidence, correct = answers(n)
    counts = metrics.resample_counts(n, 20, seed=3)
    assert (counts.sum(axis=1) == n).all()
    positions = [np.repeat(np.arange(n), row) for row in counts]
    ece = [metrics.expected_calibration_error(confidence[p], correct[p]) for p in positions]
    mce = [metrics.maximum_calibration_error(confidence[p], correct[p]) for p in positions]
    np.testing.assert_allclose(metrics.resampled_ece(confidence, correct, resamples=20, seed=3), ece, atol=1e-12)
    np.testing.assert_allclose(metrics.resampled_mce(confidence, correct, resamples=20, seed=3), mce, atol=1e-12)
    adaptive = [metrics.adaptive_calibration_error(confidence[p], correct[p]) for p in positions]
    found = metrics.resampled_adaptive_error(confidence, correct, resamples=20, seed=3)
    np.testing.assert_allclose(found, adaptive, atol=1e-12)
    debiased = [metrics.debiased_calibration_error(confidence[p], correct[p]) for p in positions]
    found = metrics.resampled_debiased_error(confidence, correct, resamples=20, seed=3)
    np.testing.assert_allclose(found, debiased, atol=1e-7)


@pytest.mark.parametrize("digits", [1, 9])
def test_resampled_areas_equal_those_of_the_copies(digits: int) -> None:
    scores, positive = answers(60, seed=4)
    scores = np.round(scores, digits)
    counts = metrics.resample_counts(60, 20, seed=3)
    positions = [np.repeat(np.arange(60), row) for row in counts]
    expected = [metrics.auroc(scores[p], positive[p]) for p in positions]
    found = metrics.resampled_auroc(scores, positive, resamples=20, seed=3)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_resamples_without_positives_are_left_out() -> None:
    found = metrics.resampled_auroc(np.arange(10.0), np.arange(10) == 9, resamples=200)
    assert found is not None
    assert 50 < len(found) < 200
    assert metrics.resampled_auroc(np.arange(10.0), np.zeros(10, dtype=bool)) is None


def test_resampled_classwise_error_equals_that_of_the_copies() -> None:
    rng = np.random.default_rng(2)
    probabilities, labels = metrics.softmax(rng.standard_normal((40, 6)) * 2), rng.integers(0, 6, 40)
    counts = metrics.resample_counts(40, 20, seed=9)
    positions = [np.repeat(np.arange(40), row) for row in counts]
    expected = [metrics.classwise_calibration_error(probabilities[p], labels[p]) for p in positions]
    found = metrics.resampled_classwise_error(probabilities, labels, resamples=20, seed=9)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_interval_of_a_mean_covers_it() -> None:
    # Of 200 samples of 100 values, 95 % intervals hold the mean in about 190: below 175 is a chance of 1 in 10^6.
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = metrics.mean_interval(rng.random(100), resamples=300, seed=seed)
        covered += low <= 0.5 <= high
    assert 175 <= covered <= 200


def test_general_form_equals_the_special_one() -> None:
    values = np.random.default_rng(1).random(30)
    general = metrics.bootstrap_interval(lambda p: float(values[p].mean()), 30, resamples=100, seed=5)
    assert general == pytest.approx(metrics.mean_interval(values, resamples=100, seed=5), abs=1e-12)


def test_scipy_gives_a_like_interval() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).random(400)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    low, high = metrics.mean_interval(values, resamples=4000)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_equal_seeds_give_equal_draws() -> None:
    assert (metrics.resample_counts(10, 5, 1) == metrics.resample_counts(10, 5, 1)).all()
    assert (metrics.resample_counts(10, 5, 1) != metrics.resample_counts(10, 5, 2)).any()


@pytest.mark.parametrize("call", [
    lambda: metrics.resample_counts(0, 5),
    lambda: metrics.mean_interval(np.array([])),
    lambda: metrics.mean_interval(np.array([np.nan])),
    lambda: metrics.percentile_interval([1.0], level=1.0),
])
def test_nonsense_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"n and|values|level"):
        call()
