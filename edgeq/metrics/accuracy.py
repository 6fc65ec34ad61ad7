"""Accuracy, and the proper scores that stand beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Bools, checked_labels, checked_probabilities, checked_scores
from edgeq.metrics.probability import log_softmax


def in_top_k(scores: ArrayLike, labels: ArrayLike, k: int = 1) -> Bools:
    """Whether the label is among the k highest scores of its row; ties go to the lower index.

    Args:
        scores: Finite logits or probabilities, shape (n, classes).
        labels: Class indices, shape (n,).
        k: At least 1; k of `classes` or more is always right.

    Returns:
        Shape (n,).

    Raises:
        ValueError: If shapes, labels or k make no sense.
    """
    values = checked_scores(scores, "scores")
    truth = checked_labels(labels, *values.shape)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    own = values[np.arange(len(values)), truth][:, None]
    before = np.arange(values.shape[1])[None, :] < truth[:, None]
    rank = (values > own).sum(axis=1) + ((values == own) & before).sum(axis=1)
    result: Bools = rank < k
    return result


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Share of rows whose label is among the k highest scores; see `in_top_k`.

    Raises:
        ValueError: If shapes, labels or k make no sense.
    """
    return float(in_top_k(scores, labels, k).mean())


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log softmax(logits)[label], in nats.

    Args:
        logits: Finite, shape (n, classes).
        labels: Class indices, shape (n,).

    Raises:
        ValueError: If shapes or labels make no sense.
    """
    log_probabilities = log_softmax(logits)
    truth = checked_labels(labels, *log_probabilities.shape)
    return float(-log_probabilities[np.arange(len(truth)), truth].mean())


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance of the distribution to the one-hot label, from 0 to 2 (Brier 1950).

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        labels: Class indices, shape (n,).

    Raises:
        ValueError: If shapes, labels or probabilities make no sense.
    """
    distance = checked_probabilities(probabilities).copy()
    truth = checked_labels(labels, *distance.shape)
    distance[np.arange(len(truth)), truth] -= 1.0
    return float((distance**2).sum(axis=1).mean())
