from __future__ import annotations

import json

import numpy as np
import pytest

from edgeq.verification import predict_disagreement, scale_temperatures
from edgeq.verification.scaling import split


def logits(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 6)) * 2


def test_margin_tells_where_noise_changes_answers() -> None:
    reference = logits(3000)
    quantized = reference + np.random.default_rng(1).standard_normal(reference.shape) * 0.3
    prediction = predict_disagreement(reference, quantized)
    assert prediction is not None
    margin = prediction.quantized["margin"]
    assert margin.auroc is not None
    assert margin.auroc > 0.85
    assert margin.auroc_interval is not None
    assert margin.auroc_interval[0] < margin.auroc < margin.auroc_interval[1]
    assert margin.auprc is not None
    assert margin.auprc > 2 * prediction.base_rate
    # Noise on every logit alike: what counts is the distance of the best two.
    assert prediction.best() == "margin"
    assert margin.curve is not None
    assert margin.curve[0] == (0.0, 0.0)
    assert margin.curve[-1] == (1.0, 1.0)
    assert len(margin.curve) <= 200
    json.dumps(prediction.to_json(), allow_nan=False)


def test_nothing_to_predict_is_said() -> None:
    prediction = predict_disagreement(logits(50), logits(50))
    assert prediction is not None
    assert prediction.base_rate == 0.0
    assert prediction.best() is None
    assert all(one.auroc is None and one.curve is None for one in prediction.quantized.values())
    assert predict_disagreement(np.ones((5, 1)), np.ones((5, 1))) is None


def test_temperatures_are_fitted_on_other_inputs_than_they_are_judged_on() -> None:
    reference, rng = logits(2000), np.random.default_rng(3)
    chances = np.exp(reference - reference.max(axis=1, keepdims=True))
    chances = (chances / chances.sum(axis=1, keepdims=True)).cumsum(axis=1)
    labels = np.minimum((rng.random((2000, 1)) > chances).sum(axis=1), 5)
    quantized = reference * 2.5  # over-confident
    scaling = scale_temperatures(reference, quantized, labels, share=0.3, seed=7)
    assert scaling is not None
    assert (scaling.fitted_on, scaling.tested_on) == (600, 1400)
    rows = scaling.rows
    assert rows["FP32"].temperature == rows["quantized"].temperature == 1.0
    assert rows["quantized, scaled"].temperature == pytest.approx(2.5 * rows["FP32, scaled"].temperature, rel=1e-6)
    assert rows["quantized, scaled"].ece < rows["quantized"].ece / 3
    assert rows["quantized, FP32's temperature"].ece > rows["quantized, scaled"].ece
    assert rows["quantized, scaled"].nll < rows["quantized"].nll
    fit, test = split(2000, 0.3, seed=7)
    assert not set(fit) & set(test)
    # The rows know only the test part: other labels in the part to fit on change the temperature alone.
    changed = labels.copy()
    changed[fit] = (changed[fit] + 1) % 6
    other = scale_temperatures(reference, quantized, changed, share=0.3, seed=7)
    assert other is not None
    assert other.rows["quantized"] == rows["quantized"]
    assert other.rows["quantized, scaled"].temperature != rows["quantized, scaled"].temperature


def test_too_few_inputs_give_no_temperature() -> None:
    assert scale_temperatures(logits(98), logits(98), np.zeros(98, int)) is None
    assert scale_temperatures(logits(100), logits(100), np.zeros(100, int)) is not None
