"""Intervals by resampling the inputs: the bootstrap (Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
percentile method)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Floats, Ints, checked_confidence, checked_labels, checked_probabilities
from edgeq.metrics.calibration import bin_index, classwise_gaps
from edgeq.metrics.detection import checked_detection

RESAMPLES = 1000

_BLOCK = 1 << 21
"""Counts that are held at once: 16 MiB."""


def resample_counts(n: int, resamples: int = RESAMPLES, seed: int = 0) -> Ints:
    """How often each of n inputs stands in each resample of n, drawn with replacement.

    Args:
        n: Number of inputs, at least 1.
        resamples: At least 1.
        seed: Of the draw: equal arguments give equal counts, so that two figures resampled alike stay paired.

    Returns:
        Shape (resamples, n); each row sums to n.

    Raises:
        ValueError: If n or resamples is below 1.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"n and resamples must be at least 1, not {n} and {resamples}.")
    return _counts(np.random.default_rng(seed), resamples, n)


def _each_resample(n: int, resamples: int, seed: int, statistic: Callable[[Floats], Floats]) -> Floats:
    """The statistic of every resample, computed on blocks of counts (float64, shape (b, n)) of some megabytes."""
    size = max(1, min(resamples, _BLOCK // n))
    if size == resamples:
        return statistic(_one_block(n, resamples, seed))
    rng = np.random.default_rng(seed)
    values = []
    for start in range(0, resamples, size):
        values.append(statistic(_counts(rng, min(size, resamples - start), n).astype(np.float64)))
    return np.concatenate(values)


@functools.lru_cache(maxsize=2)
def _one_block(n: int, resamples: int, seed: int) -> Floats:
    """All counts of few inputs, kept: the figures of one comparison are resampled alike, some thirty of them."""
    counts = _counts(np.random.default_rng(seed), resamples, n).astype(np.float64)
    counts.setflags(write=False)
    return counts


def _counts(rng: np.random.Generator, rows: int, n: int) -> Ints:
    counts: Ints = np.empty((rows, n), dtype=np.int64)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
    return counts


def bootstrap_interval(
    statistic: Callable[[Ints], float], n: int, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of any statistic of a resample.

    Args:
        statistic: Takes the positions of the resampled inputs, shape (n,), with repeats; gives its value.
        n: Number of inputs, at least 1.
        level: Coverage, in (0, 1).
        resamples: At least 1.
        seed: Of the draw.

    Raises:
        ValueError: If an argument lies outside its range.
    """
    positions = np.arange(n)

    def of_block(counts: Floats) -> Floats:
        return np.array([statistic(np.repeat(positions, row)) for row in counts.astype(np.int64)])

    return percentile_interval(_each_resample(n, resamples, seed, of_block), level)


def percentile_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of values.

    Raises:
        ValueError: If there is no value, or the level lies outside (0, 1).
    """
    drawn = np.asarray(values, dtype=np.float64)
    if drawn.ndim != 1 or drawn.size == 0:
        raise ValueError(f"values must have shape (n,) with n at least 1, not {drawn.shape}.")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def mean_interval(
    values: ArrayLike, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean of one value an input: accuracy, NLL, Brier, and the differences of such between
    two models (which pairs them).

    Args:
        values: Finite, shape (n,) with n at least 1.
        level: Coverage, in (0, 1).
        resamples: At least 1.
        seed: Of the draw.

    Raises:
        ValueError: If an argument lies outside its range.
    """
    each = np.asarray(values, dtype=np.float64)
    if each.ndim != 1 or each.size == 0 or not np.isfinite(each).all():
        raise ValueError(f"values must be finite, of shape (n,) with n at least 1, not {each.shape}.")
    means = _each_resample(each.size, resamples, seed, lambda counts: counts @ each / each.size)
    return percentile_interval(means, level)


def resampled_ece(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """The expected calibration error of each resample; see `expected_calibration_error`.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.
        resamples: At least 1.
        seed: Of the draw.

    Returns:
        Shape (resamples,).

    Raises:
        ValueError: If an argument lies outside its range.
    """
    gaps = _bin_gaps(confidence, correct, bins)
    return _each_resample(len(gaps), resamples, seed, lambda counts: np.abs(counts @ gaps).sum(axis=1) / len(gaps))


def resampled_mce(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """The maximum calibration error of each resample; see `maximum_calibration_error`.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.
        resamples: At least 1.
        seed: Of the draw.

    Returns:
        Shape (resamples,).

    Raises:
        ValueError: If an argument lies outside its range.
    """
    gaps = _bin_gaps(confidence, correct, bins)
    members = _bin_members(confidence, correct, bins)

    def of_block(counts: Floats) -> Floats:
        result: Floats = (np.abs(counts @ gaps) / np.maximum(counts @ members, 1.0)).max(axis=1)
        return result

    return _each_resample(len(gaps), resamples, seed, of_block)


def resampled_adaptive_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """The adaptive calibration error of each resample; see `adaptive_calibration_error`.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.
        resamples: At least 1.
        seed: Of the draw.

    Returns:
        Shape (resamples,).

    Raises:
        ValueError: If an argument lies outside its range.
    """

    def error(values: Floats, hits: Floats, starts: Ints, sizes: Ints) -> float:
        return float(np.abs(np.add.reduceat(hits - values, starts)).sum() / len(values))

    return _resampled_runs(confidence, correct, bins, resamples, seed, error)


def resampled_debiased_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """The debiased calibration error of each resample; see `debiased_calibration_error`.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.
        resamples: At least 1.
        seed: Of the draw.

    Returns:
        Shape (resamples,).

    Raises:
        ValueError: If an argument lies outside its range.
    """

    def error(values: Floats, hits: Floats, starts: Ints, sizes: Ints) -> float:
        kept = sizes > 1
        if not kept.any():
            return 0.0
        accuracy = np.add.reduceat(hits, starts)[kept] / sizes[kept]
        sure = np.add.reduceat(values, starts)[kept] / sizes[kept]
        squares = (accuracy - sure) ** 2 - accuracy * (1.0 - accuracy) / (sizes[kept] - 1)
        return float(np.sqrt(max(float((sizes[kept] * squares).sum()), 0.0) / int(sizes[kept].sum())))

    return _resampled_runs(confidence, correct, bins, resamples, seed, error)


def _resampled_runs(
    confidence: ArrayLike,
    correct: ArrayLike,
    bins: int,
    resamples: int,
    seed: int,
    error: Callable[[Floats, Floats, Ints, Ints], float],
) -> Floats:
    """An error over bins of equal mass of each resample. Copies of sorted values are sorted: one sort serves all."""
    values, hits = checked_confidence(confidence, correct)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}.")
    order = np.argsort(values, kind="stable")
    values, outcomes = values[order], hits[order].astype(np.float64)
    # As np.array_split cuts: longer runs first; of more bins than samples the rest are empty.
    n = len(values)
    sizes = np.full(min(bins, n), n // bins, dtype=np.int64)
    sizes[: n % bins] += 1
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def of_block(counts: Floats) -> Floats:
        copies = counts.astype(np.int64)[:, order]
        return np.array([error(np.repeat(values, row), np.repeat(outcomes, row), starts, sizes) for row in copies])

    return _each_resample(n, resamples, seed, of_block)


def resampled_auroc(
    scores: ArrayLike, positive: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Floats | None:
    """The area under the ROC curve of each resample that has positives and negatives; see `auroc`.

    Args:
        scores: Finite, larger where a positive is expected, shape (n,).
        positive: Whether it is one, shape (n,).
        resamples: At least 1.
        seed: Of the draw.

    Returns:
        One value a resample that has both, or None where none has.

    Raises:
        ValueError: If n is 0, the shapes differ or a score is not finite.
    """
    values, hits = checked_detection(scores, positive)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    positives, negatives = hits[order].astype(np.float64), (~hits[order]).astype(np.float64)

    def of_block(counts: Floats) -> Floats:
        drawn = counts[:, order]
        found = np.add.reduceat(drawn * positives, starts, axis=1)
        other = np.add.reduceat(drawn * negatives, starts, axis=1)
        # Negatives below each score, half of those that tie with it.
        below = np.cumsum(other, axis=1) - other / 2.0
        pairs = found.sum(axis=1) * other.sum(axis=1)
        area: Floats = np.divide((found * below).sum(axis=1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return area

    areas = _each_resample(values.size, resamples, seed, of_block)
    defined = areas[~np.isnan(areas)]
    return defined if defined.size else None


def resampled_classwise_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """The class-wise calibration error of each resample; see `classwise_calibration_error`.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        labels: Class indices, shape (n,).
        bins: Number of bins a class, at least 1.
        resamples: At least 1.
        seed: Of the draw.

    Returns:
        Shape (resamples,).

    Raises:
        ValueError: If shapes, labels or probabilities make no sense.
    """
    values = checked_probabilities(probabilities)
    truth = checked_labels(labels, *values.shape)
    gaps = classwise_gaps(values, truth, bins)

    def of_block(counts: Floats) -> Floats:
        result: Floats = sum((np.abs(counts @ gap).sum(axis=1) for gap in gaps), np.zeros(len(counts))) / values.size
        return result

    return _each_resample(len(truth), resamples, seed, of_block)


def _bin_members(confidence: ArrayLike, correct: ArrayLike, bins: int) -> Floats:
    """1 where input i lies in bin m: shape (n, bins)."""
    values, _ = checked_confidence(confidence, correct)
    return np.eye(bins)[bin_index(values, bins)]


def _bin_gaps(confidence: ArrayLike, correct: ArrayLike, bins: int) -> Floats:
    """What each input adds to the gap of each bin, accuracy less confidence: shape (n, bins)."""
    values, hits = checked_confidence(confidence, correct)
    return _bin_members(confidence, correct, bins) * (hits - values)[:, None]
