"""What scores say: the answer, its calibrated probability, the margin, and whether to defer.

This is the statement that csrc/runtime/prediction.cc equals bit for bit (docs/guard.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST_PROBABILITY = 1e-12
"""Probabilities of a network that ends in a softmax or a sigmoid count as at least this much in a logarithm."""

_LOG2_E = 1.4426950408889634
# ln 2 in two parts (as in fdlibm): the last 21 bits of the first are zero, so that its product with an integer of 10
# bits is exact.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says about a batch of inputs.

    Attributes:
        classes: The class of the highest score, of tied ones the lowest, int64, shape (n,).
        probability: Of that class, calibrated by the guard's temperature, float32, shape (n,).
        margin: By which it exceeds the second highest probability, float32, shape (n,).
        defer: Whether the margin is below the guard's: somebody else should answer. Shape (n,), False without a guard.
    """

    classes: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    defer: npt.NDArray[np.bool_]


def exp_of_negative(x: Floats) -> Floats:
    """exp(x) for x <= 0, within an ulp or so; 1 at 0 and 0 below -700.

    Sums and products of float64 and a power of two, each rounded on its own: the same bits as in C++, while the
    exponentials of C libraries differ by an ulp.
    """
    tiny = x < -700.0
    bounded = np.where(tiny, 0.0, x)
    k = np.trunc(bounded * _LOG2_E - 0.5)
    r = (bounded - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.zeros_like(r)
    for n in range(13, -1, -1):
        total = total * r + 1.0 / math.factorial(n)
    result: Floats = np.where(tiny, 0.0, np.ldexp(total, k.astype(np.int64)))
    return result


def log_of_probability(p: npt.NDArray[np.floating[Any]]) -> Floats:
    """log(max(p, LEAST_PROBABILITY)) in float64, within an ulp or so: the logits of what a softmax gives, since
    softmax(log p) = p. NaN where p is not finite.

    Each operation rounds on its own: the same bits as in C++, as of `exp_of_negative`.
    """
    finite = np.isfinite(p)
    bounded = np.maximum(np.where(finite, p, 1.0).astype(np.float64), LEAST_PROBABILITY)
    fraction, power = np.frexp(bounded)
    low = fraction < math.sqrt(0.5)
    fraction, k = np.where(low, 2.0 * fraction, fraction), power.astype(np.float64) - low
    s = (fraction - 1.0) / (fraction + 1.0)
    square = s * s
    total = np.zeros_like(s)
    for n in range(21, 0, -2):
        total = total * square + 1.0 / n
    result: Floats = np.where(finite, k * _LN2_HIGH + (2.0 * s * total + k * _LN2_LOW), np.nan)
    return result


def predict(
    scores: npt.NDArray[np.floating[Any]], temperature: float = 1.0, margin: float = 0.0, probabilities: bool = False
) -> Prediction:
    """Reads scores: logits, or probabilities, whose logits are their logarithms.

    In float64: e_j = exp((logit_j - max) / temperature), sum = e_0 + e_1 + ... in this order, probability = 1 / sum,
    margin = (1 - second highest e) / sum, both then rounded to float32.

    Args:
        scores: Shape (n, classes) with at least two classes. A row that holds one that is not finite has a probability
            and a margin of 0.
        temperature: Of the guard, as float32 holds it; positive.
        margin: Below it an input is deferred; rounded to float32. 0 defers nothing.
        probabilities: Whether the scores are what a softmax gives.

    Raises:
        ValueError: If the shape is another one.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"predictions need scores of shape (n, classes), 2 classes at least, not {scores.shape}.")
    answers: npt.NDArray[np.int64] = scores.argmax(axis=1).astype(np.int64)
    finite = np.asarray(np.isfinite(scores).all(axis=1))
    values = np.where(finite[:, None], scores, 0.0).astype(np.float64)
    if probabilities:
        values = log_of_probability(values)
    shifted = (values - values.max(axis=1, keepdims=True)) / np.float64(np.float32(temperature))
    weights = exp_of_negative(shifted)
    # cumsum adds in order, sum does not.
    total = np.cumsum(weights, axis=1)[:, -1]
    second = np.partition(weights, -2, axis=1)[:, -2]
    probability = np.where(finite, 1.0 / total, 0.0).astype(np.float32)
    margins = np.where(finite, (1.0 - second) / total, 0.0).astype(np.float32)
    return Prediction(answers, probability, margins, margins < np.float32(margin))
