"""On which inputs two models answer differently, and who is right there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Floats, Ints, checked_labels, checked_scores
from edgeq.metrics.probability import log_softmax, softmax


@dataclass(frozen=True, slots=True)
class DisagreementSplit:
    """Shares of all inputs on which the two models answer differently; they add up to the rate.

    Attributes:
        reference_only_correct: Negative flips (Yan et al. 2021, arXiv 2011.09161).
        quantized_only_correct: Positive flips.
        both_wrong: Two different wrong answers.
    """

    reference_only_correct: float
    quantized_only_correct: float
    both_wrong: float


def disagreement_rate(reference: ArrayLike, quantized: ArrayLike) -> float:
    """Share of inputs with different answers, also called churn (Milani Fard et al. 2016, "Launch and
    Iterate").

    Args:
        reference: Predicted classes of the float model, shape (n,); see `predicted_class` for ties.
        quantized: Predicted classes of the quantized model, shape (n,).

    Raises:
        ValueError: If n is 0, or the shapes or types make no sense.
    """
    first, second = _checked_answers(reference, quantized)
    return float((first != second).mean())


def disagreement_split(reference: ArrayLike, quantized: ArrayLike, labels: ArrayLike) -> DisagreementSplit:
    """The disagreement rate, split by who is right.

    Args:
        reference: Predicted classes of the float model, shape (n,).
        quantized: Predicted classes of the quantized model, shape (n,).
        labels: Class indices, shape (n,).

    Raises:
        ValueError: If n is 0, or the shapes or types make no sense.
    """
    first, second = _checked_answers(reference, quantized)
    truth = checked_labels(labels, len(first), np.iinfo(np.int64).max)
    differ = first != second
    return DisagreementSplit(
        reference_only_correct=float((differ & (first == truth)).mean()),
        quantized_only_correct=float((differ & (second == truth)).mean()),
        both_wrong=float((differ & (first != truth) & (second != truth)).mean()),
    )


def top_k_overlap(reference: ArrayLike, quantized: ArrayLike, k: int = 5) -> float:
    """Mean share of the k best classes of one model that are among the k best of the other; ties go to the lower
    index.

    Args:
        reference: Finite logits of the float model, shape (n, classes).
        quantized: Finite logits of the quantized model, shape (n, classes).
        k: From 1 to classes.

    Raises:
        ValueError: If the shapes differ, or k makes no sense.
    """
    first, second = _checked_pair(reference, quantized)
    if not 1 <= k <= first.shape[1]:
        raise ValueError(f"k must lie in [1, {first.shape[1]}], not {k}.")
    members = [np.zeros(first.shape, dtype=np.bool_) for _ in range(2)]
    for scores, member in zip((first, second), members, strict=True):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        np.put_along_axis(member, best, True, axis=1)
    return float((members[0] & members[1]).sum() / (len(first) * k))


def kl_divergences(reference: ArrayLike, quantized: ArrayLike) -> Floats:
    """KL(softmax(reference) || softmax(quantized)) of each input, in nats.

    Args:
        reference: Finite logits of the float model, shape (n, classes).
        quantized: Finite logits of the quantized model, shape (n, classes).

    Returns:
        Shape (n,), at least 0.

    Raises:
        ValueError: If the shapes differ or a logit is not finite.
    """
    first, second = _checked_pair(reference, quantized)
    log_first = log_softmax(first)
    divergence = (np.exp(log_first) * (log_first - log_softmax(second))).sum(axis=1)
    result: Floats = np.maximum(divergence, 0.0)
    return result


def largest_probability_change(reference: ArrayLike, quantized: ArrayLike) -> float:
    """The largest change of any class's probability on any input.

    Args:
        reference: Finite logits of the float model, shape (n, classes).
        quantized: Finite logits of the quantized model, shape (n, classes).

    Raises:
        ValueError: If the shapes differ or a logit is not finite.
    """
    first, second = _checked_pair(reference, quantized)
    return float(np.abs(softmax(first) - softmax(second)).max())


def _checked_pair(reference: ArrayLike, quantized: ArrayLike) -> tuple[Floats, Floats]:
    first, second = checked_scores(reference, "reference"), checked_scores(quantized, "quantized")
    if first.shape != second.shape:
        raise ValueError(f"reference and quantized must have one shape, not {first.shape} and {second.shape}.")
    return first, second


def _checked_answers(reference: ArrayLike, quantized: ArrayLike) -> tuple[Ints, Ints]:
    first, second = np.asarray(reference), np.asarray(quantized)
    for name, array in (("reference", first), ("quantized", second)):
        if array.dtype.kind not in "iu" or array.ndim != 1 or array.size == 0:
            raise ValueError(
                f"{name} must hold class indices of shape (n,), n at least 1, not {array.dtype} of shape "
                f"{array.shape}."
            )
    if first.shape != second.shape:
        raise ValueError(
            f"reference has {first.size} answers and quantized {second.size}; they must be as many."
        )
    return first.astype(np.int64), second.astype(np.int64)
