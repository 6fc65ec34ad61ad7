"""Checks of the arrays that metrics take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def checked_scores(scores: ArrayLike, name: str = "logits") -> Floats:
    """Scores as float64, shape (n, k) with n and k at least 1.

    Raises:
        ValueError: If the shape is another one, or a value is NaN or infinite.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must have shape (n, classes) with n and classes at least 1, not {array.shape}."
        )
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        raise ValueError(
            f"{name} must be finite, but {rows.size} of {len(array)} rows are not, first row {rows[0]}."
        )
    return array


def checked_labels(labels: ArrayLike, count: int, classes: int) -> Ints:
    """Class indices as int64, shape (count,).

    Raises:
        ValueError: If they are not integers of that shape in [0, classes).
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, not {array.dtype}.")
    if array.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), not {array.shape}.")
    if int(array.min()) < 0 or int(array.max()) >= classes:
        worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise ValueError(f"labels must lie in [0, {classes}), but one is {worst}.")
    return array.astype(np.int64)


def checked_probabilities(probabilities: ArrayLike) -> Floats:
    """Probabilities as float64, shape (n, k), each row a distribution to 1e-4.

    Raises:
        ValueError: If the shape is another one, or a row is no distribution.
    """
    array = checked_scores(probabilities, "probabilities")
    if array.min() < 0 or array.max() > 1 or float(np.abs(array.sum(axis=1) - 1).max()) > 1e-4:
        raise ValueError("probabilities must lie in [0, 1] and each row must sum to 1. Pass softmax(logits).")
    return array


def checked_confidence(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Bools]:
    """Confidences as float64 and correctness as bool, both of shape (n,) with n at least 1.

    Raises:
        ValueError: If n is 0, the shapes differ, or a confidence lies outside [0, 1].
    """
    values = np.asarray(confidence, dtype=np.float64)
    hits: NDArray[Any] = np.asarray(correct)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"confidence must have shape (n,) with n at least 1, not {values.shape}.")
    if hits.shape != values.shape:
        raise ValueError(f"correct must have shape {values.shape} as confidence has, not {hits.shape}.")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("confidence must lie in [0, 1], without NaN.")
    if hits.dtype != np.bool_ and not bool(np.isin(hits, (0, 1)).all()):
        raise ValueError("correct must hold booleans (or 0 and 1).")
    return values, hits.astype(np.bool_)
