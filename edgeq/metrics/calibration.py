"""Whether confidences are honest: reliability bins and the errors computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Floats, Ints, checked_confidence, checked_labels, checked_probabilities


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The samples whose confidence lies in (lower, upper].

    Attributes:
        lower: Lower edge, exclusive (the first bin also holds a confidence of exactly 0).
        upper: Upper edge, inclusive.
        count: Number of samples.
        confidence: Their mean confidence, or None for an empty bin.
        accuracy: Their accuracy, or None for an empty bin.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None

    @property
    def gap(self) -> float:
        """Distance of accuracy and confidence; 0 for an empty bin."""
        if self.confidence is None or self.accuracy is None:
            return 0.0
        return abs(self.accuracy - self.confidence)


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Accuracy and mean confidence in equal-width bins (Guo et al. 2017, arXiv 1706.04599, section 2).

    Bin m holds confidences in ((m - 1) / bins, m / bins], m from 1 to bins.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.

    Raises:
        ValueError: If n is 0, the shapes differ, or a confidence lies outside [0, 1].
    """
    values, hits = checked_confidence(confidence, correct)
    index = bin_index(values, bins)
    edges = np.arange(bins + 1) / bins
    counts = np.bincount(index, minlength=bins)
    confidence_sums = np.bincount(index, weights=values, minlength=bins)
    hit_sums = np.bincount(index, weights=hits, minlength=bins)
    return tuple(
        ReliabilityBin(
            lower=float(edges[m]),
            upper=float(edges[m + 1]),
            count=int(counts[m]),
            confidence=float(confidence_sums[m] / counts[m]) if counts[m] else None,
            accuracy=float(hit_sums[m] / counts[m]) if counts[m] else None,
        )
        for m in range(bins)
    )


def bin_index(values: Floats, bins: int) -> Ints:
    """The equal-width bin of each value in [0, 1], from 0: bin m holds (m / bins, (m + 1) / bins], the first one 0 too.

    Args:
        values: Any shape.
        bins: Number of bins, at least 1.

    Raises:
        ValueError: If bins is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}.")
    edges = np.arange(bins + 1) / bins
    index: Ints = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, bins - 1).astype(np.int64)
    return index


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Bin m holds confidences in ((m - 1) / bins, m / bins]. Empty bins contribute nothing.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.

    Raises:
        ValueError: If n is 0, the shapes differ, or a confidence lies outside [0, 1].
    """
    filled = reliability_bins(confidence, correct, bins)
    return sum(one.count * one.gap for one in filled) / sum(one.count for one in filled)


def maximum_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Largest gap of a filled bin (Guo et al. 2017, arXiv 1706.04599, eq. 5).

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.

    Raises:
        ValueError: If n is 0, the shapes differ, or a confidence lies outside [0, 1].
    """
    return max(one.gap for one in reliability_bins(confidence, correct, bins))


def adaptive_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Calibration error over bins of equal mass (Nixon et al. 2019, arXiv 1904.01685, section 3).

    The sorted confidences are cut into `bins` runs whose lengths differ by one at most, longer ones first; runs
    without a sample contribute nothing. Of equal confidences at a cut, those that stand first in the input come
    first.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.

    Raises:
        ValueError: If n is 0, the shapes differ, or a confidence lies outside [0, 1].
    """
    values, hits = checked_confidence(confidence, correct)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}.")
    order = np.argsort(values, kind="stable")
    gaps = (hits - values)[order]
    return float(sum(abs(float(part.sum())) for part in np.array_split(gaps, bins)) / len(gaps))


def classwise_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean over classes of the calibration error of that class's probability (Kull et al. 2019, arXiv 1910.12656,
    eq. 2, "classwise-ECE"; Nixon et al. call it static calibration error).

    Equal-width bins as in `reliability_bins`, one set a class, over all samples.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        labels: Class indices, shape (n,).
        bins: Number of bins a class, at least 1.

    Raises:
        ValueError: If shapes, labels or probabilities make no sense.
    """
    values = checked_probabilities(probabilities)
    truth = checked_labels(labels, *values.shape)
    gaps = classwise_gaps(values, truth, bins)
    return float(sum(np.abs(gap.sum(axis=0)).sum() for gap in gaps) / values.size)


def classwise_gaps(probabilities: Floats, labels: Ints, bins: int = 15) -> tuple[Floats, ...]:
    """For each bin that holds anything, what each sample adds to the gap of each class there.

    The class-wise error of a resample with `counts[i]` copies of sample i is the sum over bins of
    |counts @ gap|, over classes, divided by their number and that of the samples: products of matrices instead of
    new bins.

    Args:
        probabilities: Shape (n, classes).
        labels: Class indices, shape (n,).
        bins: Number of bins, at least 1.

    Returns:
        One array a bin, shape (n, the classes that the bin has samples of).
    """
    truth = np.zeros(probabilities.shape)
    truth[np.arange(len(labels)), labels] = 1.0
    difference = truth - probabilities
    index = bin_index(probabilities, bins)
    gaps = []
    for one in range(bins):
        members = index == one
        classes = members.any(axis=0)
        if classes.any():
            gaps.append(np.where(members[:, classes], difference[:, classes], 0.0))
    return tuple(gaps)


def debiased_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Root of the debiased squared calibration error (Kumar et al. 2019, arXiv 1909.10155, definition 5.2), over
    bins of equal mass.

    The plug-in square of a bin's gap exceeds the true one by the variance of the bin's accuracy, accuracy (1 -
    accuracy) / (count - 1), which is taken off; bins of one sample cannot tell theirs and are left
    out, so that two samples a bin are the least that says anything. A negative
    sum, which a calibrated model gives half of the time, counts as 0.

    Args:
        confidence: Top-1 probabilities, shape (n,).
        correct: Whether the top-1 class is the label, shape (n,).
        bins: Number of bins, at least 1.

    Returns:
        The error, an l2 norm: not below the expected calibration error of the same bins but for the correction.

    Raises:
        ValueError: If n is 0, the shapes differ, or a confidence lies outside [0, 1].
    """
    values, hits = checked_confidence(confidence, correct)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}.")
    order = np.argsort(values, kind="stable")
    total, kept = 0.0, 0
    for members in np.array_split(order, bins):
        count = len(members)
        if count < 2:
            continue
        kept += count
        accuracy, confidence = float(hits[members].mean()), float(values[members].mean())
        variance = accuracy * (1.0 - accuracy) / (count - 1)
        total += count * ((accuracy - confidence) ** 2 - variance)
    return float(np.sqrt(max(total, 0.0) / max(kept, 1)))
