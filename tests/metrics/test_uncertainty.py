from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics


def test_scores_by_hand() -> None:
    rows = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(metrics.margin_uncertainty(rows), [0.8, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(metrics.least_confidence(rows), [0.5, 0.0, 2 / 3], atol=1e-12)
    np.testing.assert_allclose(metrics.gini_uncertainty(rows), [0.62, 0.0, 2 / 3], atol=1e-12)
    entropy = -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2)) / np.log(3)
    np.testing.assert_allclose(metrics.entropy_uncertainty(rows), [entropy, 0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("name", list(metrics.UNCERTAINTY_SCORES))
def test_scores_grow_with_uncertainty(name: str) -> None:
    logits = np.array([[0.0, 2.0, 1.0, -1.0]])
    probabilities = metrics.softmax(np.concatenate([logits / t for t in (0.5, 1.0, 2.0, 8.0)]))
    scores = metrics.UNCERTAINTY_SCORES[name](probabilities)
    assert (np.diff(scores) > 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_scipy_agrees_on_entropy() -> None:
    stats = pytest.importorskip("scipy.stats")
    probabilities = metrics.softmax(np.random.default_rng(0).standard_normal((50, 7)) * 3)
    expected = stats.entropy(probabilities, axis=1) / np.log(7)
    np.testing.assert_allclose(metrics.entropy_uncertainty(probabilities), expected, atol=1e-12)


@pytest.mark.parametrize("name", list(metrics.UNCERTAINTY_SCORES))
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="two classes"):
        metrics.UNCERTAINTY_SCORES[name](np.ones((3, 1)))
