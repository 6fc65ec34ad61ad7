"""Compares the logits of a quantized model with those of the float model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeq import metrics
from edgeq.errors import DataError
from edgeq.metrics import ReliabilityBin

BINS = 15


@dataclass(frozen=True, slots=True)
class Quality:
    """How well one model answers; everything that needs labels.

    Attributes:
        top1: Share of right answers.
        top5: Share of samples whose label is among the five highest logits; None for fewer than six classes.
        ece: Expected calibration error, 15 equal-width bins.
        mce: Largest gap of a bin.
        nll: Negative log-likelihood in nats.
        brier: Mean squared distance to the one-hot label, 0 to 2.
        mean_confidence: Mean top-1 probability.
        bins: The reliability diagram.
    """

    top1: float
    top5: float | None
    ece: float
    mce: float
    nll: float
    brier: float
    mean_confidence: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """On how many inputs the two models answer differently.

    Attributes:
        rate: Share of inputs whose top-1 class differs.
        count: Their number.
        interval: 95 % Wilson interval of the rate.
        reference_only_correct: Share where the float model is right and the quantized one is not; None
            without labels.
        quantized_only_correct: Share where it is the other way round; None without labels.
        both_wrong: Share where both are wrong, differently; None without labels.
        reference_tie_rate: Share of inputs where the float model's highest logit ties.
        quantized_tie_rate: The same of the quantized model.
    """

    rate: float
    count: int
    interval: tuple[float, float]
    reference_only_correct: float | None
    quantized_only_correct: float | None
    both_wrong: float | None
    reference_tie_rate: float
    quantized_tie_rate: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A quantized model beside its float model on the same inputs.

    Attributes:
        n: Number of inputs.
        classes: Number of classes.
        reference: The float model, or None without labels.
        quantized: The quantized model, or None without labels.
        disagreement: Where they answer differently.
        logit_sqnr_db: Signal to noise ratio of the quantized logits; inf where they are equal.
        largest_logit_error: Largest absolute difference of a logit.
        disagreeing: Positions of the inputs with different answers, ascending.
    """

    n: int
    classes: int
    reference: Quality | None
    quantized: Quality | None
    disagreement: Disagreement
    logit_sqnr_db: float
    largest_logit_error: float
    disagreeing: tuple[int, ...]

    @property
    def labelled(self) -> bool:
        """Whether labels were there, so that accuracy and calibration are known."""
        return self.reference is not None

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values; null stands for what needs labels, and for an infinite SQNR."""
        empty = dict.fromkeys(("top1", "top5", "ece", "mce", "nll", "brier", "mean_confidence", "bins"))
        disagreement = asdict(self.disagreement)
        disagreement["interval"] = list(self.disagreement.interval)
        return {
            "n": self.n,
            "classes": self.classes,
            "labelled": self.labelled,
            "reference": _quality_json(self.reference) if self.reference else dict(empty),
            "quantized": _quality_json(self.quantized) if self.quantized else dict(empty),
            "disagreement": disagreement,
            "logit_sqnr_db": self.logit_sqnr_db if math.isfinite(self.logit_sqnr_db) else None,
            "logits_equal": self.largest_logit_error == 0.0,
            "largest_logit_error": self.largest_logit_error,
        }


def _quality_json(quality: Quality) -> dict[str, Any]:
    values = asdict(quality)
    values["bins"] = [asdict(one) for one in quality.bins]
    return values


def compare(
    reference_logits: ArrayLike, quantized_logits: ArrayLike, labels: ArrayLike | None = None
) -> Comparison:
    """Compares two models by their logits on the same inputs.

    Probabilities are the float64 softmax of the logits, and ties go to the lowest class, for both models.

    Args:
        reference_logits: The float model's, shape (n, classes).
        quantized_logits: The quantized model's, shape (n, classes).
        labels: Class indices, shape (n,), or None: then only disagreement and logit error are known.

    Raises:
        DataError: If the arrays are empty, not finite, of different shapes, or a label is no class of the
            model.
    """
    reference = _checked_logits(reference_logits, "reference model")
    quantized = _checked_logits(quantized_logits, "quantized model")
    if reference.shape != quantized.shape:
        raise DataError(
            f"The reference model gives logits of shape {reference.shape}, the quantized model "
            f"{quantized.shape}: they are not the same classifier. Verify an export against the model that "
            "it was made from."
        )
    truth = None if labels is None else _checked_labels(labels, *reference.shape)
    return Comparison(
        n=len(reference),
        classes=reference.shape[1],
        reference=None if truth is None else _quality(reference, truth),
        quantized=None if truth is None else _quality(quantized, truth),
        disagreement=_disagreement(reference, quantized, truth),
        logit_sqnr_db=metrics.sqnr_db(reference, quantized),
        largest_logit_error=float(np.abs(reference - quantized).max()),
        disagreeing=_disagreeing(reference, quantized),
    )


def _checked_logits(logits: ArrayLike, who: str) -> NDArray[np.float64]:
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(
            f"The {who} gives an array of shape {array.shape}; logits of shape (n, classes) are needed."
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise DataError(
            f"The {who} gives NaN or infinite logits on {int((~finite).sum())} of {len(array)} inputs, first "
            f"on input {int(np.argmin(finite))}. Check that its weights are finite and that the "
            "preprocessing is the one it needs."
        )
    return array


def _checked_labels(labels: ArrayLike, count: int, classes: int) -> NDArray[np.int64]:
    try:
        return metrics.arrays.checked_labels(labels, count, classes)
    except ValueError as error:
        raise DataError(
            f"The labels do not fit a model of {classes} classes and {count} inputs: {error}. Check that the "
            "class indices are those the model was trained with."
        ) from error


def _quality(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> Quality:
    probabilities = metrics.softmax(logits)
    # The largest float64 sum of a row may exceed 1 by rounding; a probability must not.
    confidence = np.minimum(probabilities.max(axis=1), 1.0)
    correct = metrics.predicted_class(logits) == labels
    return Quality(
        top1=float(correct.mean()),
        top5=metrics.top_k_accuracy(logits, labels, 5) if logits.shape[1] > 5 else None,
        ece=metrics.expected_calibration_error(confidence, correct, BINS),
        mce=metrics.maximum_calibration_error(confidence, correct, BINS),
        nll=metrics.negative_log_likelihood(logits, labels),
        brier=metrics.brier_score(probabilities, labels),
        mean_confidence=float(confidence.mean()),
        bins=metrics.reliability_bins(confidence, correct, BINS),
    )


def _disagreement(
    reference: NDArray[np.float64], quantized: NDArray[np.float64], labels: NDArray[np.int64] | None
) -> Disagreement:
    first, second = metrics.predicted_class(reference), metrics.predicted_class(quantized)
    split = None if labels is None else metrics.disagreement_split(first, second, labels)
    count = int((first != second).sum())
    return Disagreement(
        rate=metrics.disagreement_rate(first, second),
        count=count,
        interval=metrics.wilson_interval(count, len(first)),
        reference_only_correct=None if split is None else split.reference_only_correct,
        quantized_only_correct=None if split is None else split.quantized_only_correct,
        both_wrong=None if split is None else split.both_wrong,
        reference_tie_rate=metrics.tie_rate(reference),
        quantized_tie_rate=metrics.tie_rate(quantized),
    )


def _disagreeing(reference: NDArray[np.float64], quantized: NDArray[np.float64]) -> tuple[int, ...]:
    differ = metrics.predicted_class(reference) != metrics.predicted_class(quantized)
    return tuple(int(position) for position in np.flatnonzero(differ))
