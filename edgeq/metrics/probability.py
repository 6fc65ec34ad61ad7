"""From logits to probabilities and answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Floats, Ints, checked_scores


def softmax(logits: ArrayLike) -> Floats:
    """Softmax over classes, in float64.

    Args:
        logits: Finite, shape (n, classes).

    Returns:
        Probabilities, shape (n, classes); each row sums to 1.

    Raises:
        ValueError: If the shape is another one, or a logit is not finite.
    """
    values = checked_scores(logits)
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def log_softmax(logits: ArrayLike) -> Floats:
    """Logarithm of the softmax over classes, in float64, finite where the softmax underflows.

    Args:
        logits: Finite, shape (n, classes).

    Raises:
        ValueError: If the shape is another one, or a logit is not finite.
    """
    values = checked_scores(logits)
    shifted = values - values.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def predicted_class(scores: ArrayLike) -> Ints:
    """The class of the highest score of each row; of tied classes the lowest index.

    Quantized logits tie often, so the rule matters: both models use this one.

    Args:
        scores: Finite logits or probabilities, shape (n, classes).

    Raises:
        ValueError: If the shape is another one, or a score is not finite.
    """
    answers: Ints = checked_scores(scores, "scores").argmax(axis=1).astype(np.int64)
    return answers


def tie_rate(scores: ArrayLike) -> float:
    """Share of rows whose highest score is reached by more than one class.

    Args:
        scores: Finite logits or probabilities, shape (n, classes).

    Raises:
        ValueError: If the shape is another one, or a score is not finite.
    """
    values = checked_scores(scores, "scores")
    return float(((values == values.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean())
