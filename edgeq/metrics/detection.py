"""How well a score tells the inputs of interest from the others: those on which two models disagree, say.

Each figure is None where it is not defined, because there is none of the one kind or of the other; a number such as
0.5 would be taken for a finding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Bools, Floats


def auroc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Area under the receiver operating characteristic: the chance that a positive's score exceeds a negative's,
    equal scores counting half (Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve").

    Args:
        scores: Finite, larger where a positive is expected, shape (n,).
        positive: Whether it is one, shape (n,).

    Returns:
        From 0 to 1, or None without a positive or a negative.

    Raises:
        ValueError: If n is 0, the shapes differ or a score is not finite.
    """
    values, hits = checked_detection(scores, positive)
    positives = int(hits.sum())
    negatives = hits.size - positives
    if positives == 0 or negatives == 0:
        return None
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    # Ranks from 1; of equal scores each has their mean.
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2.0
    rank_sum = float(mid_ranks[index][hits].sum())
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * negatives)


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Area under the precision-recall curve as the sum of precision times the step of recall, without
    interpolation, which is what scikit-learn computes.

    Args:
        scores: Finite, larger where a positive is expected, shape (n,).
        positive: Whether it is one, shape (n,).

    Returns:
        From the share of positives, about, to 1; None without a positive or a negative.

    Raises:
        ValueError: If n is 0, the shapes differ or a score is not finite.
    """
    values, hits = checked_detection(scores, positive)
    if not hits.any() or hits.all():
        return None
    found, taken = _curve(values, hits)
    recall_steps = np.diff(found, prepend=0) / found[-1]
    return float((recall_steps * found / taken).sum())


def true_negative_rate(scores: ArrayLike, positive: ArrayLike, true_positive_rate: float = 0.95) -> float | None:
    """Share of negatives below the threshold that catches at least `true_positive_rate` of the positives.

    Args:
        scores: Finite, larger where a positive is expected, shape (n,).
        positive: Whether it is one, shape (n,).
        true_positive_rate: Of the positives, the share to catch; in (0, 1].

    Returns:
        From 0 to 1, or None without a positive or a negative.

    Raises:
        ValueError: If n is 0, the shapes differ, a score is not finite, or the rate lies outside its range.
    """
    values, hits = checked_detection(scores, positive)
    if not 0.0 < true_positive_rate <= 1.0:
        raise ValueError(f"true_positive_rate must lie in (0, 1], not {true_positive_rate}.")
    if not hits.any() or hits.all():
        return None
    threshold = catching_threshold(values[hits], true_positive_rate)
    return float((values[~hits] < threshold).mean())


def catching_threshold(positives: ArrayLike, share: float) -> float:
    """The highest threshold at or above which at least `share` of the positives' scores lie.

    Args:
        positives: Finite scores of the positives, shape (n,) with n at least 1.
        share: In (0, 1].

    Raises:
        ValueError: If there is no score, or the share lies outside its range.
    """
    values = np.sort(np.asarray(positives, dtype=np.float64))[::-1]
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a threshold needs finite scores of at least one positive.")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], not {share}.")
    # Less a part in 10^9, so that 0.9 of 10, which is 9.000000000000002 in binary, is nine.
    needed = int(np.ceil(share * values.size * (1.0 - 1e-9)))
    return float(values[max(needed, 1) - 1])


def logistic_auroc(scores: ArrayLike, positive: ArrayLike, seed: int = 0) -> float | None:
    """AUROC of a logistic regression on the score alone, fitted on one half of the inputs and judged on the other,
    each way, averaged (the predictor of Hu et al. 2022, arXiv 2204.04220, section 5).

    A logistic regression of one score is a monotone function of it: what it adds is the direction, which it takes
    from the data. Halves are drawn by `seed` and have the same share of positives.

    Args:
        scores: Finite, shape (n,).
        positive: Whether it is a positive, shape (n,).
        seed: Of the halves.

    Returns:
        From 0 to 1, or None where a half would lack positives or negatives.

    Raises:
        ValueError: If n is 0, the shapes differ or a score is not finite.
    """
    values, hits = checked_detection(scores, positive)
    rng = np.random.default_rng(seed)
    first = np.zeros(hits.size, dtype=np.bool_)
    for members in (np.flatnonzero(hits), np.flatnonzero(~hits)):
        if members.size < 2:
            return None
        first[rng.permutation(members)[: members.size // 2]] = True
    areas = []
    for fitted in (first, ~first):
        direction = _logistic_slope(values[fitted], hits[fitted])
        area = auroc(np.sign(direction) * values[~fitted], hits[~fitted])
        assert area is not None
        areas.append(area)
    return float(np.mean(areas))


def roc_curve(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats] | None:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1).

    Args:
        scores: Finite, larger where a positive is expected, shape (n,).
        positive: Whether it is one, shape (n,).

    Returns:
        Two arrays of the same length, ascending, or None without a positive or a negative.

    Raises:
        ValueError: If n is 0, the shapes differ or a score is not finite.
    """
    values, hits = checked_detection(scores, positive)
    if not hits.any() or hits.all():
        return None
    found, taken = _curve(values, hits)
    true_rate = np.concatenate([[0.0], found / found[-1]])
    false_rate = np.concatenate([[0.0], (taken - found) / (hits.size - found[-1])])
    return false_rate, true_rate


def _curve(values: Floats, hits: Bools) -> tuple[Floats, Floats]:
    """Positives found and inputs taken at each distinct threshold, highest first."""
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), values.size - 1)
    return np.cumsum(hits[order])[ends].astype(np.float64), (ends + 1).astype(np.float64)


def _logistic_slope(values: Floats, hits: Bools) -> float:
    """Slope of a logistic regression of one feature, by Newton steps with a small ridge, which keeps the slope of
    separable data finite."""
    spread = float(values.std())
    if spread == 0.0:
        return 0.0
    feature = np.stack([(values - values.mean()) / spread, np.ones_like(values)], axis=1)
    ridge = np.diag([1e-3, 1e-6])
    weights = np.zeros(2)
    for _ in range(50):
        chance = 1.0 / (1.0 + np.exp(-np.clip(feature @ weights, -30.0, 30.0)))
        gradient = feature.T @ (chance - hits) + ridge @ weights
        curvature = (feature * (chance * (1.0 - chance))[:, None]).T @ feature + ridge
        step = np.linalg.solve(curvature, gradient)
        # Half a length where Newton's step would overshoot.
        weights = weights - step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-30))
        if float(np.abs(step).max()) < 1e-10:
            break
    return float(weights[0])


def checked_detection(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Bools]:
    """Scores as float64 and whether each is a positive, both of shape (n,) with n at least 1.

    Raises:
        ValueError: If n is 0, the shapes differ or a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    hits = np.asarray(positive)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"scores must be finite, of shape (n,) with n at least 1, not {values.shape}.")
    if hits.shape != values.shape or hits.dtype != np.bool_:
        raise ValueError(f"positive must be boolean of shape {values.shape}, not {hits.dtype} of {hits.shape}.")
    return values, hits
