"""Compares the logits of a quantized model with those of the float model."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        adaptive_ece: The same over 15 bins of equal mass.
        classwise_ece: Mean over classes of the error of the class's own probability.
        debiased_ece: Root of the debiased squared error; see `metrics.debiased_calibration_error`.
        mce: Largest gap of a bin.
        nll: Negative log-likelihood in nats.
        brier: Mean squared distance to the one-hot label, 0 to 2.
        mean_confidence: Mean top-1 probability.
        bins: The reliability diagram.
        intervals: 95 % interval of each figure by its name: Wilson's of the shares, by seeded bootstrap of the rest.
    """

    top1: float
    top5: float | None
    ece: float
    adaptive_ece: float
    classwise_ece: float
    debiased_ece: float
    mce: float
    nll: float
    brier: float
    mean_confidence: float
    bins: tuple[ReliabilityBin, ...]
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Change:
    """What quantization does to the figures, on the same inputs.

    Attributes:
        top1: Accuracy of the quantized model less that of the float model.
        top1_interval: 95 % interval of the paired difference, by bootstrap.
        mcnemar_p: Exact two-sided p that both are equally often right.
        ece: Expected calibration error of the quantized model less that of the float model.
        ece_interval: 95 % interval of it, by paired bootstrap.
    """

    top1: float
    top1_interval: tuple[float, float]
    mcnemar_p: float
    ece: float
    ece_interval: tuple[float, float]


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
        top5_overlap: Mean share of the five best classes that both models name; None for fewer than six classes.
        mean_kl: Mean KL divergence of the quantized model's distribution from the float model's, in nats.
        largest_probability_change: Of any class on any input.
    """

    rate: float
    count: int
    interval: tuple[float, float]
    reference_only_correct: float | None
    quantized_only_correct: float | None
    both_wrong: float | None
    reference_tie_rate: float
    quantized_tie_rate: float
    top5_overlap: float | None
    mean_kl: float
    largest_probability_change: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A quantized model beside its float model on the same inputs.

    Attributes:
        n: Number of inputs.
        classes: Number of classes.
        reference: The float model, or None without labels.
        quantized: The quantized model, or None without labels.
        change: What differs between their figures, or None without labels.
        disagreement: Where they answer differently.
        logit_sqnr_db: Signal to noise ratio of the quantized logits; inf where they are equal.
        largest_logit_error: Largest absolute difference of a logit.
        disagreeing: Positions of the inputs with different answers, ascending.
    """

    n: int
    classes: int
    reference: Quality | None
    quantized: Quality | None
    change: Change | None
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
        empty: dict[str, Any] = dict.fromkeys(Quality.__dataclass_fields__)
        return {
            "n": self.n,
            "classes": self.classes,
            "labelled": self.labelled,
            "reference": asdict(self.reference) if self.reference else dict(empty),
            "quantized": asdict(self.quantized) if self.quantized else dict(empty),
            "change": asdict(self.change) if self.change else None,
            "disagreement": asdict(self.disagreement),
            "logit_sqnr_db": self.logit_sqnr_db if math.isfinite(self.logit_sqnr_db) else None,
            "logits_equal": self.largest_logit_error == 0.0,
            "largest_logit_error": self.largest_logit_error,
        }


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
        DataError: If the arrays are empty, not finite, of different shapes or of one column, or a label is no class of
            the model.
    """
    reference = _checked_logits(reference_logits, "reference model")
    quantized = _checked_logits(quantized_logits, "quantized model")
    if reference.shape != quantized.shape:
        raise DataError(
            f"The reference model gives logits of shape {reference.shape}, the quantized model "
            f"{quantized.shape}: they are not the same classifier. Verify an export against the model that "
            "it was made from."
        )
    if reference.shape[1] < 2:
        raise DataError(
            "The models give one score a sample, which always names the same class; at least two classes are needed. "
            "For a binary classifier pass two columns, [0, z] for a logit z."
        )
    truth = None if labels is None else _checked_labels(labels, *reference.shape)
    return Comparison(
        n=len(reference),
        classes=reference.shape[1],
        reference=None if truth is None else _quality(reference, truth),
        quantized=None if truth is None else _quality(quantized, truth),
        change=None if truth is None else _change(reference, quantized, truth),
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
    confidence, correct = _confidence(probabilities), metrics.predicted_class(logits) == labels
    five = metrics.in_top_k(logits, labels, 5) if logits.shape[1] > 5 else None
    rows = np.arange(len(labels))
    nll = -metrics.log_softmax(logits)[rows, labels]
    truth = np.zeros_like(probabilities)
    truth[rows, labels] = 1.0
    brier = ((probabilities - truth) ** 2).sum(axis=1)

    intervals = {
        "top1": metrics.wilson_interval(int(correct.sum()), len(correct)),
        "ece": metrics.percentile_interval(metrics.resampled_ece(confidence, correct, BINS)),
        "adaptive_ece": metrics.percentile_interval(metrics.resampled_adaptive_error(confidence, correct, BINS)),
        "classwise_ece": metrics.percentile_interval(metrics.resampled_classwise_error(probabilities, labels, BINS)),
        "debiased_ece": metrics.percentile_interval(metrics.resampled_debiased_error(confidence, correct, BINS)),
        "mce": metrics.percentile_interval(metrics.resampled_mce(confidence, correct, BINS)),
        "nll": metrics.mean_interval(nll),
        "brier": metrics.mean_interval(brier),
        "mean_confidence": metrics.mean_interval(confidence),
    }
    if five is not None:
        intervals["top5"] = metrics.wilson_interval(int(five.sum()), len(five))
    return Quality(
        top1=float(correct.mean()),
        top5=None if five is None else float(five.mean()),
        ece=metrics.expected_calibration_error(confidence, correct, BINS),
        adaptive_ece=metrics.adaptive_calibration_error(confidence, correct, BINS),
        classwise_ece=metrics.classwise_calibration_error(probabilities, labels, BINS),
        debiased_ece=metrics.debiased_calibration_error(confidence, correct, BINS),
        mce=metrics.maximum_calibration_error(confidence, correct, BINS),
        nll=float(nll.mean()),
        brier=float(brier.mean()),
        mean_confidence=float(confidence.mean()),
        bins=metrics.reliability_bins(confidence, correct, BINS),
        intervals=intervals,
    )


def _confidence(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    # The largest float64 sum of a row may exceed 1 by rounding; a probability must not.
    confidence: NDArray[np.float64] = np.minimum(probabilities.max(axis=1), 1.0)
    return confidence


def _change(
    reference: NDArray[np.float64], quantized: NDArray[np.float64], labels: NDArray[np.int64]
) -> Change:
    right = [metrics.predicted_class(logits) == labels for logits in (reference, quantized)]
    sure = [_confidence(metrics.softmax(logits)) for logits in (reference, quantized)]
    # One seed draws the same inputs for both models, so that the differences are paired.
    errors = [metrics.resampled_ece(one, hits, BINS) for one, hits in zip(sure, right, strict=True)]
    ece = [metrics.expected_calibration_error(one, hits, BINS) for one, hits in zip(sure, right, strict=True)]
    return Change(
        top1=float(right[1].mean() - right[0].mean()),
        top1_interval=metrics.mean_interval(right[1].astype(np.float64) - right[0].astype(np.float64)),
        mcnemar_p=metrics.mcnemar_p(*right),
        ece=ece[1] - ece[0],
        ece_interval=metrics.percentile_interval(errors[1] - errors[0]),
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
        top5_overlap=metrics.top_k_overlap(reference, quantized) if reference.shape[1] > 5 else None,
        mean_kl=float(metrics.kl_divergences(reference, quantized).mean()),
        largest_probability_change=metrics.largest_probability_change(reference, quantized),
    )


def _disagreeing(reference: NDArray[np.float64], quantized: NDArray[np.float64]) -> tuple[int, ...]:
    differ = metrics.predicted_class(reference) != metrics.predicted_class(quantized)
    return tuple(int(position) for position in np.flatnonzero(differ))
