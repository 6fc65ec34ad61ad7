"""Temperature scaling: one number that makes confidences honest without changing an answer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import checked_labels, checked_scores

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
"""Bounds of the fit: where every answer is right, the best temperature would be 0, and where logits say nothing,
infinite."""

_TOLERANCE = 1e-10
_STEPS = 200


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(logits / T) (Guo et al. 2017, arXiv 1706.04599,
    section 4.2).

    Fit it on inputs that were neither trained on nor will be reported on. The likelihood is convex in 1 / T, so that a
    bisection on the sign of its slope finds the minimum, to a relative 1e-10, from any start.

    Args:
        logits: Finite, shape (n, classes).
        labels: Class indices, shape (n,).

    Returns:
        T within [0.01, 100].

    Raises:
        ValueError: If shapes, labels or logits make no sense.
    """
    values = checked_scores(logits)
    truth = checked_labels(labels, *values.shape)
    shifted = values - values.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(truth)), truth]

    def slope(inverse: float) -> float:
        """Of the likelihood by 1 / T: mean over inputs of E_p[logit] - logit of the label."""
        weights = np.exp(inverse * shifted)
        expected = (weights * shifted).sum(axis=1) / weights.sum(axis=1)
        return float((expected - own).mean())

    low, high = 1.0 / HIGHEST_TEMPERATURE, 1.0 / LOWEST_TEMPERATURE
    if slope(low) >= 0.0:
        return HIGHEST_TEMPERATURE
    if slope(high) <= 0.0:
        return LOWEST_TEMPERATURE
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if slope(middle) < 0.0:
            low = middle
        else:
            high = middle
        if high / low - 1.0 < _TOLERANCE:
            break
    return 1.0 / math.sqrt(low * high)
