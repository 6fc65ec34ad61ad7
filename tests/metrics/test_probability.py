from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics


def test_softmax_by_hand() -> None:
    expected = np.array([[0.5, 0.5, 0.0], [2 / 3, 1 / 3, 0.0]])
    logits = np.array([[0, 0, -800], [np.log(2), 0, -800]], np.float32)
    np.testing.assert_allclose(metrics.softmax(logits), expected, atol=3e-8)


def test_softmax_of_large_logits() -> None:
    probabilities = metrics.softmax([[1e30, 0.0], [-1e30, -1e30]])
    np.testing.assert_array_equal(probabilities, [[1.0, 0.0], [0.5, 0.5]])


def test_log_softmax_stays_finite_where_softmax_underflows() -> None:
    np.testing.assert_allclose(metrics.log_softmax([[0.0, -2000.0]]), [[0.0, -2000.0]])
    logits = np.random.default_rng(0).normal(size=(20, 7))
    np.testing.assert_allclose(metrics.log_softmax(logits), np.log(metrics.softmax(logits)), atol=1e-14)


def test_ties_go_to_the_lowest_class() -> None:
    scores = np.array([[1, 3, 3], [2, 2, 2], [0, 1, 2]])
    assert metrics.predicted_class(scores).tolist() == [1, 0, 2]
    assert metrics.tie_rate(scores) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "wrong", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0)), [[np.nan, 0]], [[np.inf, 0]]]
)
def test_wrong_logits(wrong: np.ndarray) -> None:
    for function in (metrics.softmax, metrics.log_softmax, metrics.predicted_class, metrics.tie_rate):
        with pytest.raises(ValueError, match="must"):
            function(wrong)
