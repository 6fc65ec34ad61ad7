"""How unsure a model is of its answer: scores of its probabilities, larger where it is less sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Floats, checked_probabilities


def margin_uncertainty(probabilities: ArrayLike) -> Floats:
    """1 - (p1 - p2), with p1 and p2 the two largest probabilities of a row.

    Args:
        probabilities: Shape (n, classes) with at least two classes, rows sum to 1.

    Returns:
        Shape (n,), from 0 (sure) to 1.

    Raises:
        ValueError: If there is one class, or a row is no distribution.
    """
    values = _checked(probabilities)
    best = np.partition(values, values.shape[1] - 2, axis=1)[:, -2:]
    result: Floats = 1.0 - (best[:, 1] - best[:, 0])
    return result


def least_confidence(probabilities: ArrayLike) -> Floats:
    """1 - p1, with p1 the largest probability of a row.

    Args:
        probabilities: Shape (n, classes) with at least two classes, rows sum to 1.

    Returns:
        Shape (n,), from 0 (sure) to 1 - 1 / classes.

    Raises:
        ValueError: If there is one class, or a row is no distribution.
    """
    result: Floats = 1.0 - _checked(probabilities).max(axis=1)
    return result


def entropy_uncertainty(probabilities: ArrayLike) -> Floats:
    """Entropy of a row over that of the uniform distribution: -sum p log p / log classes.

    Args:
        probabilities: Shape (n, classes) with at least two classes, rows sum to 1.

    Returns:
        Shape (n,), from 0 (sure) to 1.

    Raises:
        ValueError: If there is one class, or a row is no distribution.
    """
    values = _checked(probabilities)
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    result: Floats = -(values * logs).sum(axis=1) / np.log(values.shape[1])
    return result


def gini_uncertainty(probabilities: ArrayLike) -> Floats:
    """1 - sum p^2 of a row (DeepGini, Feng et al. 2020, arXiv 1903.00661).

    Args:
        probabilities: Shape (n, classes) with at least two classes, rows sum to 1.

    Returns:
        Shape (n,), from 0 (sure) to 1 - 1 / classes.

    Raises:
        ValueError: If there is one class, or a row is no distribution.
    """
    result: Floats = 1.0 - (_checked(probabilities) ** 2).sum(axis=1)
    return result


UNCERTAINTY_SCORES: Mapping[str, Callable[[ArrayLike], Floats]] = {
    "margin": margin_uncertainty,
    "entropy": entropy_uncertainty,
    "gini": gini_uncertainty,
    "least confidence": least_confidence,
}
"""The four scores of Hu et al. 2022 (arXiv 2204.04220) by name."""


def _checked(probabilities: ArrayLike) -> Floats:
    values = checked_probabilities(probabilities)
    if values.shape[1] < 2:
        raise ValueError("uncertainty needs probabilities of at least two classes.")
    return values
