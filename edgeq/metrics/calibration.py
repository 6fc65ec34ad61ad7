"""Whether confidences are honest: reliability bins and the errors computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgeq.metrics.arrays import Ints, checked_confidence


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
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}.")
    edges = np.arange(bins + 1) / bins
    index: Ints = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, bins - 1).astype(np.int64)
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
