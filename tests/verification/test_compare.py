from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgeq import metrics
from edgeq.errors import DataError
from edgeq.verification import compare, format_table


def case(n: int = 300, classes: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + classes)
    reference = rng.normal(size=(n, classes)).astype(np.float32) * 3
    quantized = reference + rng.normal(size=reference.shape).astype(np.float32)
    return reference, quantized, rng.integers(0, classes, n)


def test_json_has_the_promised_keys() -> None:
    values = json.loads(json.dumps(compare(*case()).to_json(), allow_nan=False))
    assert values["n"] == 300
    for model in ("reference", "quantized"):
        assert isinstance(values[model]["top1"], float)
        assert isinstance(values[model]["ece"], float)
        assert len(values[model]["bins"]) == 15
    for key in ("rate", "reference_only_correct", "quantized_only_correct", "both_wrong"):
        assert isinstance(values["disagreement"][key], float)
    assert isinstance(values["logit_sqnr_db"], float)


def test_figures_are_those_of_the_metrics() -> None:
    reference, quantized, labels = case()
    comparison = compare(reference, quantized, labels)
    answers = [logits.argmax(1) for logits in (reference, quantized)]
    assert comparison.reference is not None
    assert comparison.quantized is not None
    for quality, logits, answer in zip(
        (comparison.reference, comparison.quantized), (reference, quantized), answers, strict=True
    ):
        confidence = metrics.softmax(logits).max(1)
        assert quality.top1 == pytest.approx((answer == labels).mean())
        assert quality.ece == pytest.approx(metrics.expected_calibration_error(confidence, answer == labels))
        assert quality.mean_confidence == pytest.approx(confidence.mean())
    assert comparison.disagreement.rate == pytest.approx((answers[0] != answers[1]).mean())
    assert comparison.disagreeing == tuple(np.flatnonzero(answers[0] != answers[1]))
    assert comparison.logit_sqnr_db == pytest.approx(metrics.sqnr_db(reference, quantized))


def test_without_labels_disagreement_is_still_known() -> None:
    reference, quantized, labels = case()
    with_labels, without = compare(reference, quantized, labels), compare(reference, quantized)
    values = without.to_json()
    assert not without.labelled
    assert values["reference"]["top1"] is None
    assert values["quantized"]["ece"] is None
    assert values["disagreement"]["both_wrong"] is None
    assert without.disagreement.rate == with_labels.disagreement.rate
    assert without.logit_sqnr_db == with_labels.logit_sqnr_db
    assert "no labels" in format_table(without)


def test_equal_models() -> None:
    reference, _, labels = case()
    comparison = compare(reference, reference, labels)
    assert comparison.disagreement.rate == 0.0
    assert comparison.logit_sqnr_db == math.inf
    values = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert values["logit_sqnr_db"] is None
    assert values["logits_equal"] is True
    assert "equal logits" in format_table(comparison)


@pytest.mark.parametrize("classes", [2, 5, 6])
@pytest.mark.parametrize("n", [1, 2])
def test_degenerate_sizes(n: int, classes: int) -> None:
    comparison = compare(*case(n, classes))
    assert comparison.reference is not None
    assert (comparison.reference.top5 is None) == (classes <= 5)
    assert format_table(comparison)
    json.dumps(comparison.to_json(), allow_nan=False)


def test_confidences_that_round_above_one() -> None:
    logits = np.tile(np.array([[40.0, -1e-17, 3e-17]]), (50, 1))
    assert compare(logits, logits, np.zeros(50, int)).reference.ece == pytest.approx(0.0, abs=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, q, y: (r, q[:, :9], y), "not the same classifier"),
        (lambda r, q, y: (r, q[:-1], y), "not the same classifier"),
        (
            lambda r, q, y: (r, np.where(np.arange(300)[:, None] == 7, np.nan, q), y),
            "quantized model gives NaN.*input 7",
        ),
        (lambda r, q, y: (r * np.inf, q, y), "reference model gives NaN or infinite"),
        (lambda r, q, y: (r, q, y + 1), "labels do not fit a model of 10 classes"),
        (lambda r, q, y: (r, q, y[:-1]), "labels do not fit"),
        (lambda r, q, y: (r[:0], q[:0], y[:0]), "logits of shape"),
        (lambda r, q, y: (r.ravel(), q.ravel(), y), "logits of shape"),
    ],
)
def test_malformed_logits(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        compare(*change(*case()))


def test_table_aligns_its_columns() -> None:
    lines = format_table(compare(*case()), "w4a8 native").splitlines()
    assert lines[0].split()[:4] == ["n", "=", "300", "FP32"]
    assert len({len(line) for line in lines[:9]}) == 1
    assert all(len(line) <= 100 for line in lines)
