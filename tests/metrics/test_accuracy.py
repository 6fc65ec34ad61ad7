from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def case(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, classes)) * 3, rng.integers(0, classes, n)


@pytest.mark.parametrize("k", [1, 2, 5, 9, 10, 11])
@pytest.mark.parametrize("n", [1, 7, 400])
def test_top_k_equals_scikit_learn(n: int, k: int) -> None:
    logits, labels = case(n, 10)
    if k < 10:
        expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(10))
        assert metrics.top_k_accuracy(logits, labels, k) == pytest.approx(expected, abs=1e-12)
    else:
        assert metrics.top_k_accuracy(logits, labels, k) == 1.0


def test_top_k_ties_go_to_the_lower_class() -> None:
    scores = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    assert metrics.in_top_k(scores, [0, 1, 2], 1).tolist() == [True, False, False]
    assert metrics.in_top_k(scores, [0, 1, 2], 2).tolist() == [True, True, False]


def test_top_1_is_the_predicted_class() -> None:
    logits = np.round(case(500, 6)[0])
    labels = case(500, 6)[1]
    np.testing.assert_array_equal(metrics.in_top_k(logits, labels), metrics.predicted_class(logits) == labels)


@pytest.mark.parametrize("n", [1, 5, 300])
@pytest.mark.parametrize("classes", [2, 10])
def test_nll_equals_scikit_learn(n: int, classes: int) -> None:
    logits, labels = case(n, classes)
    expected = sklearn_metrics.log_loss(labels, metrics.softmax(logits), labels=range(classes))
    assert metrics.negative_log_likelihood(logits, labels) == pytest.approx(expected, abs=1e-9)


def test_nll_of_a_certain_mistake_is_finite() -> None:
    assert metrics.negative_log_likelihood([[0.0, 5000.0]], [0]) == pytest.approx(5000.0)


def test_brier_equals_scikit_learn_for_two_classes() -> None:
    logits, labels = case(300, 2)
    probabilities = metrics.softmax(logits)
    # scikit-learn's binary score counts one of the two classes.
    expected = 2 * sklearn_metrics.brier_score_loss(labels, probabilities[:, 1])
    assert metrics.brier_score(probabilities, labels) == pytest.approx(expected, abs=1e-12)


def test_brier_by_hand() -> None:
    probabilities = [[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]]
    # The second row is a certain mistake, at the largest distance there is.
    assert metrics.brier_score(probabilities, [0, 0]) == pytest.approx((0.25 + 0.09 + 0.04 + 2.0) / 2)
    assert metrics.brier_score([[1.0, 0.0]], [0]) == 0.0


@pytest.mark.parametrize("labels", [[0], [0, 3], [0, -1], [0.0, 1.0], [[0, 1]]])
def test_wrong_labels(labels: list[object]) -> None:
    scores = np.zeros((2, 3))
    for function in (metrics.top_k_accuracy, metrics.negative_log_likelihood):
        with pytest.raises(ValueError, match="labels"):
            function(scores, labels)
    with pytest.raises(ValueError, match="labels"):
        metrics.brier_score(np.full((2, 3), 1 / 3), labels)


def test_wrong_k_and_probabilities() -> None:
    with pytest.raises(ValueError, match="k must"):
        metrics.top_k_accuracy([[0.0, 1.0]], [0], 0)
    with pytest.raises(ValueError, match="probabilities"):
        metrics.brier_score([[0.5, 0.6]], [0])
