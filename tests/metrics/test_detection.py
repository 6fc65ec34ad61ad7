from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics


def cases() -> list[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    scores = rng.random(500)
    return [
        ("random", scores, rng.random(500) < 0.3),
        ("rare", scores, np.arange(500) == 17),
        ("ties", np.round(scores, 1), rng.random(500) < 0.3),
        ("all tied", np.ones(500), rng.random(500) < 0.3),
        ("separable", scores, scores > 0.8),
        ("reversed", scores, scores < 0.2),
        ("two", np.array([0.25, 0.75]), np.array([False, True])),
    ]


@pytest.mark.parametrize("name, scores, positive", cases(), ids=lambda value: value if isinstance(value, str) else "")
def test_areas_equal_scikit_learn(name: str, scores: np.ndarray, positive: np.ndarray) -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    assert metrics.auroc(scores, positive) == pytest.approx(oracle.roc_auc_score(positive, scores), abs=1e-12)
    expected = oracle.average_precision_score(positive, scores)
    assert metrics.average_precision(scores, positive) == pytest.approx(expected, abs=1e-12)
    curve = metrics.roc_curve(scores, positive)
    assert curve is not None
    false_rate, true_rate, _ = oracle.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve[0], false_rate, atol=1e-12)
    np.testing.assert_allclose(curve[1], true_rate, atol=1e-12)


def test_areas_equal_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    for _, scores, positive in cases():
        arguments = torch.from_numpy(scores), torch.from_numpy(positive.astype(np.int64))
        assert metrics.auroc(scores, positive) == pytest.approx(float(oracle.binary_auroc(*arguments)), abs=1e-6)
        expected = float(oracle.binary_average_precision(*arguments))
        assert metrics.average_precision(scores, positive) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("positive", [np.zeros(5, dtype=bool), np.ones(5, dtype=bool)])
def test_without_one_kind_nothing_is_defined(positive: np.ndarray) -> None:
    scores = np.arange(5.0)
    assert metrics.auroc(scores, positive) is None
    assert metrics.average_precision(scores, positive) is None
    assert metrics.true_negative_rate(scores, positive) is None
    assert metrics.roc_curve(scores, positive) is None
    assert metrics.logistic_auroc(scores, positive) is None


def test_true_negative_rate_by_hand() -> None:
    # Of the positives (9, 7, 5, 1) three quarters are caught at 5; of the negatives 2 and 4 lie below.
    scores = np.array([9.0, 7.0, 5.0, 1.0, 2.0, 4.0, 5.0, 6.0])
    positive = np.arange(8) < 4
    assert metrics.true_negative_rate(scores, positive, 0.75) == 0.5
    assert metrics.true_negative_rate(scores, positive, 1.0) == 0.0


@pytest.mark.parametrize("share, expected", [(1.0, 1.0), (0.9, 2.0), (0.91, 1.0), (0.1, 10.0), (0.01, 10.0)])
def test_threshold_catches_the_share_and_no_more(share: float, expected: float) -> None:
    assert metrics.catching_threshold(np.arange(1.0, 11.0), share) == expected


def test_logistic_regression_finds_the_direction() -> None:
    rng = np.random.default_rng(4)
    scores = rng.standard_normal(2000)
    positive = rng.random(2000) < 1 / (1 + np.exp(3 + 2 * scores))
    plain, fitted = metrics.auroc(scores, positive), metrics.logistic_auroc(scores, positive)
    assert plain is not None
    assert plain < 0.2
    assert fitted == pytest.approx(1 - plain, abs=0.02)
    assert metrics.logistic_auroc(np.zeros(2000), positive) == 0.5


def test_logistic_regression_equals_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    from edgeq.metrics.detection import _logistic_slope

    rng = np.random.default_rng(5)
    scores = rng.standard_normal(400)
    positive = rng.random(400) < 1 / (1 + np.exp(1 - 1.5 * scores))
    scaled = ((scores - scores.mean()) / scores.std())[:, None]
    fit = linear.LogisticRegression(C=1e3, tol=1e-10).fit(scaled, positive)
    assert _logistic_slope(scores, positive) == pytest.approx(float(fit.coef_[0, 0]), abs=1e-5)


@pytest.mark.parametrize(
    "scores, positive",
    [([], []), ([1.0, np.nan], [True, False]), ([1.0, 2.0], [True]), ([1.0, 2.0], [1, 0])],
)
def test_nonsense_is_refused(scores: list[float], positive: list[bool]) -> None:
    for function in (metrics.auroc, metrics.average_precision, metrics.true_negative_rate, metrics.logistic_auroc):
        with pytest.raises(ValueError, match=r"scores|positive"):
            function(np.array(scores, dtype=np.float64), np.array(positive))
