"""On which inputs two models answer differently, and who is right there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Ints, checked_labels


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
