"""Confidence intervals."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Bools


def wilson_interval(successes: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a rate (Wilson 1927, "Probable inference").

    Args:
        successes: From 0 to count.
        count: At least 1.
        level: Coverage, in (0, 1).

    Returns:
        Lower and upper bound, within [0, 1].

    Raises:
        ValueError: If an argument lies outside its range.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(
            f"successes must lie in [0, count] and count be at least 1, not {successes} of {count}."
        )
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / count
    centre = rate + z * z / (2 * count)
    reach = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    lower = 0.0 if successes == 0 else max(0.0, (centre - reach) / scale)
    upper = 1.0 if successes == count else min(1.0, (centre + reach) / scale)
    return lower, upper


def paired_difference_interval(
    reference: ArrayLike, quantized: ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the change of a rate between two models on the same inputs (Agresti and Min 2005, "Simple
    improved confidence intervals for comparing matched proportions").

    Half an input is added to each of the four ways in which two models can be right and wrong, so that models without
    a difference do not get an interval of length zero. The middle is that of the added counts, not the plain change.

    Args:
        reference: Whether the first model is right, shape (n,).
        quantized: Whether the second model is right, shape (n,).
        level: Coverage, in (0, 1).

    Returns:
        Bounds of the second rate less the first, within [-1, 1].

    Raises:
        ValueError: If n is 0, the shapes or types make no sense, or the level lies outside its range.
    """
    first, second = _checked_outcomes(reference, quantized)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    lost = int((first & ~second).sum()) + 0.5
    won = int((~first & second).sum()) + 0.5
    total = first.size + 2
    change = (won - lost) / total
    reach = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt((won + lost) / total - change**2) / math.sqrt(total)
    return max(-1.0, change - reach), min(1.0, change + reach)


def mcnemar_p(reference: ArrayLike, quantized: ArrayLike) -> float:
    """The exact two-sided p value that two models on the same inputs are equally often right (McNemar 1947, "Note on
    the sampling error of the difference between correlated proportions"; binomial form).

    Only inputs where one model alone is right count: of those, each model would win half.

    Args:
        reference: Whether the first model is right, shape (n,).
        quantized: Whether the second model is right, shape (n,).

    Returns:
        From 0 to 1; 1 where they never differ.

    Raises:
        ValueError: If n is 0, or the shapes or types make no sense.
    """
    first, second = _checked_outcomes(reference, quantized)
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    trials, fewer = lost + won, min(lost, won)
    # Integers: exact, whatever the number of trials.
    tail = sum(math.comb(trials, wins) for wins in range(fewer + 1))
    return min(1.0, float(Fraction(2 * tail, 2**trials)))


def _checked_outcomes(reference: ArrayLike, quantized: ArrayLike) -> tuple[Bools, Bools]:
    first, second = np.asarray(reference), np.asarray(quantized)
    if first.dtype != np.bool_ or second.dtype != np.bool_ or first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"reference and quantized must be boolean of one shape (n,), not {first.dtype} of {first.shape} and "
            f"{second.dtype} of {second.shape}."
        )
    if first.size == 0:
        raise ValueError("two models need at least one input to be compared.")
    return first, second
