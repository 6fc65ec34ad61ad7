"""Bounds that a quantized model must keep before it ships, and their verdicts for a build server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike

from edgeq import metrics
from edgeq.errors import UsageError
from edgeq.metrics.arrays import Floats, Ints
from edgeq.verification.compare import BINS


@dataclass(frozen=True, slots=True)
class Gates:
    """What is asked of a quantized model; None asks nothing.

    Attributes:
        max_accuracy_drop: Points of top-1 accuracy, in percent, that it may lose.
        max_ece: Expected calibration error that it may have.
        max_ece_increase: By how much that may exceed the float model's.
        max_disagreement: Share of inputs that it may answer differently, from 0 to 1.
        confidence: With it, from 0.5 to 1, a gate holds only when that one-sided bound of the figure keeps it, not the
            figure alone.
    """

    max_accuracy_drop: float | None = None
    max_ece: float | None = None
    max_ece_increase: float | None = None
    max_disagreement: float | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not np.isfinite(value):
                raise UsageError(f"{field.name} must be a finite number, not {value}.")
        if self.confidence is not None and not 0.5 <= self.confidence < 1.0:
            raise UsageError(
                f"confidence must lie in [0.5, 1), not {self.confidence}: 0.95 asks that the one-sided 95 % bound keep "
                "the gate."
            )
        if self.max_disagreement is not None and not 0.0 <= self.max_disagreement <= 1.0:
            raise UsageError(
                f"max_disagreement must lie in [0, 1], not {self.max_disagreement}: it is a share, 0.02 for 2 %."
            )

    @property
    def any(self) -> bool:
        """Whether anything is asked."""
        return any(getattr(self, name) is not None for name in _NEEDS_LABELS) or self.max_disagreement is not None


_NEEDS_LABELS = ("max_accuracy_drop", "max_ece", "max_ece_increase")


@dataclass(frozen=True, slots=True)
class GateResult:
    """The verdict of one gate.

    Attributes:
        name: The option, such as max-disagreement.
        limit: What was allowed.
        value: The figure.
        bound: The upper bound of it that was held against the limit; the figure itself without a confidence.
        passed: Whether the bound keeps the limit.
        sentence: All of it in words.
    """

    name: str
    limit: float
    value: float
    bound: float
    passed: bool
    sentence: str


def check_gates(
    gates: Gates, reference: ArrayLike, quantized: ArrayLike, labels: ArrayLike | None
) -> tuple[GateResult, ...]:
    """Holds the figures of a verification against the gates.

    The one-sided bound of the disagreement is Wilson's; those of the others come from the seeded bootstrap, paired
    where both models enter.

    Args:
        gates: What is asked.
        reference: The float model's logits, finite, shape (n, classes).
        quantized: The quantized model's, the same shape.
        labels: Class indices, shape (n,), or None.

    Returns:
        One result for each gate that is asked, in the order of `Gates`.

    Raises:
        UsageError: If a gate needs labels and there are none.
    """
    if labels is None and any(getattr(gates, name) is not None for name in _NEEDS_LABELS):
        raise UsageError(
            "Gates on accuracy and calibration need labels, which the data do not have. Give labelled data, or ask for "
            "--max-disagreement alone."
        )
    logits = np.asarray(reference, np.float64), np.asarray(quantized, np.float64)
    truth = None if labels is None else np.asarray(labels, np.int64)
    results = []
    for name, (unit, figure) in _FIGURES.items():
        limit = getattr(gates, name)
        if limit is not None:
            value, bound = figure(*logits, truth, gates.confidence)
            results.append(_result(name, unit, limit, value, bound, gates.confidence))
    return tuple(results)


def _result(
    name: str, unit: str, limit: float, value: float, bound: float, confidence: float | None
) -> GateResult:
    passed = bound <= limit
    form = {"points": "{:.2f} points", "share": "{:.2%}", "": "{:.4f}"}[unit].format
    shown = form(value) + (f" (at most {form(bound)} with {confidence:.0%} confidence)" if confidence else "")
    what = _WORDS[name]
    verdict = f"keeps the limit of {form(limit)}" if passed else f"exceeds the limit of {form(limit)}"
    return GateResult(name.replace("_", "-"), limit, value, bound, passed, f"{what}, {shown}, {verdict}.")


_WORDS = {
    "max_accuracy_drop": "The loss of top-1 accuracy",
    "max_ece": "The expected calibration error",
    "max_ece_increase": "The increase of the expected calibration error",
    "max_disagreement": "The disagreement with the float model",
}


def _upper(values: Floats, confidence: float) -> float:
    return float(np.quantile(values, confidence))


def _right(logits: Floats, labels: Ints) -> tuple[Floats, metrics.arrays.Bools]:
    confidence = np.minimum(metrics.softmax(logits).max(axis=1), 1.0)
    return confidence, metrics.predicted_class(logits) == labels


def _accuracy_drop(
    reference: Floats, quantized: Floats, labels: Ints, confidence: float | None
) -> tuple[float, float]:
    _, first = _right(reference, labels)
    _, second = _right(quantized, labels)
    lost = 100.0 * (first.astype(np.float64) - second.astype(np.float64))
    value = float(lost.mean())
    if confidence is None:
        return value, value
    # A two-sided interval of this level has the one-sided bound as its upper end.
    return value, metrics.mean_interval(lost, 2 * confidence - 1)[1] if confidence > 0.5 else value


def _ece(reference: Floats, quantized: Floats, labels: Ints, confidence: float | None) -> tuple[float, float]:
    sure, right = _right(quantized, labels)
    value = metrics.expected_calibration_error(sure, right, BINS)
    return value, value if confidence is None else _upper(metrics.resampled_ece(sure, right, BINS), confidence)


def _ece_increase(
    reference: Floats, quantized: Floats, labels: Ints, confidence: float | None
) -> tuple[float, float]:
    first, second = _right(reference, labels), _right(quantized, labels)
    value = metrics.expected_calibration_error(*second, BINS) - metrics.expected_calibration_error(*first, BINS)
    if confidence is None:
        return value, value
    return value, _upper(metrics.resampled_ece(*second, BINS) - metrics.resampled_ece(*first, BINS), confidence)


def _disagreement(
    reference: Floats, quantized: Floats, labels: Ints | None, confidence: float | None
) -> tuple[float, float]:
    differ = metrics.predicted_class(reference) != metrics.predicted_class(quantized)
    value = float(differ.mean())
    if confidence is None or confidence == 0.5:
        return value, value
    return value, metrics.wilson_interval(int(differ.sum()), len(differ), 2 * confidence - 1)[1]


_FIGURES: dict[str, tuple[str, Callable[..., tuple[float, float]]]] = {
    "max_accuracy_drop": ("points", _accuracy_drop),
    "max_ece": ("", _ece),
    "max_ece_increase": ("", _ece_increase),
    "max_disagreement": ("share", _disagreement),
}


def junit_xml(results: Sequence[GateResult], suite: str, seconds: float) -> str:
    """The verdicts in the form that build servers read.

    Args:
        results: Of `check_gates`.
        suite: Name of the test suite: the model, say.
        seconds: That the verification took.
    """
    failed = sum(not one.passed for one in results)
    root = ElementTree.Element("testsuites")
    body = ElementTree.SubElement(
        root, "testsuite", name=suite, tests=str(len(results)), failures=str(failed), errors="0", skipped="0",
        time=f"{seconds:.3f}",
    )
    for one in results:
        case = ElementTree.SubElement(body, "testcase", classname=suite, name=one.name, time="0")
        if one.passed:
            ElementTree.SubElement(case, "system-out").text = one.sentence
        else:
            ElementTree.SubElement(case, "failure", message=one.sentence, type="gate").text = one.sentence
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
