from __future__ import annotations

import math

import numpy as np
import pytest

from edgeq.metrics import margin_uncertainty, softmax
from edgeq.simulate import predict
from edgeq.simulate.prediction import exp_of_negative, log_of_probability


def test_exp(rng: np.random.Generator) -> None:
    x = -np.concatenate([[0.0, 1e-300, 1e-17, math.log(2) / 2, 700.0], rng.random(20000) * 700, rng.random(20000)])
    found = exp_of_negative(x)
    wanted = np.array([math.exp(value) for value in x])
    assert np.abs(found / wanted - 1).max() < 4e-16
    assert found[0] == 1.0
    np.testing.assert_array_equal(exp_of_negative(np.array([-700.1, -1e300, -np.inf])), 0.0)


def test_log(rng: np.random.Generator) -> None:
    edges = [1.0, 0.5, 2**-0.5, 1 - 2**-24, 1e-12, 1.001]
    p = np.concatenate([edges, rng.random(20000), 10 ** (-12 * rng.random(20000))])
    found = log_of_probability(p)
    wanted = np.array([math.log(value) for value in p])
    np.testing.assert_allclose(found, wanted, rtol=5e-16, atol=0)
    assert found[0] == 0.0
    np.testing.assert_allclose(log_of_probability(np.array([0.0, 1e-30, -1.0])), math.log(1e-12), rtol=5e-16)
    assert np.isnan(log_of_probability(np.array([np.nan, np.inf, -np.inf]))).all()
    steps = rng.random(20000).astype(np.float32)
    assert (log_of_probability(np.nextafter(steps, np.float32(2))) > log_of_probability(steps)).all()


def test_probabilities_are_their_own_softmax(rng: np.random.Generator) -> None:
    p = softmax(rng.normal(0, 6, (500, 9))).astype(np.float32)
    found = predict(p, probabilities=True)
    np.testing.assert_array_equal(found.classes, p.argmax(axis=1))
    np.testing.assert_allclose(found.probability, p.max(axis=1), rtol=1e-6)
    ordered = np.sort(p, axis=1)
    np.testing.assert_allclose(found.margin, ordered[:, -1] - ordered[:, -2], rtol=1e-5, atol=1e-6)
    same = predict(log_of_probability(p), 1.7, 0.2)
    for name in ("classes", "probability", "margin", "defer"):
        np.testing.assert_array_equal(getattr(predict(p, 1.7, 0.2, probabilities=True), name), getattr(same, name))


@pytest.mark.parametrize("temperature", [0.01, 0.37, 1.0, 25.0])
def test_is_the_softmax(temperature: float, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 3, (200, 17)).astype(np.float32)
    found = predict(logits, temperature, 0.3)
    scaled = softmax(logits / np.float64(np.float32(temperature)))
    np.testing.assert_array_equal(found.classes, logits.argmax(axis=1))
    np.testing.assert_allclose(found.probability, scaled.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.margin, 1 - margin_uncertainty(scaled), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found.defer, found.margin < np.float32(0.3))
    assert [str(part.dtype) for part in (found.classes, found.probability, found.margin, found.defer)] == [
        "int64",
        "float32",
        "float32",
        "bool",
    ]


def test_ties_take_the_lowest_class_and_have_no_margin() -> None:
    found = predict(np.array([[1, 3, 3], [2, 2, 2]], np.float32), 1.0, 1e-6)
    assert found.classes.tolist() == [1, 0]
    assert found.margin.tolist() == [0.0, 0.0]
    assert found.defer.all()
    assert not predict(np.array([[1, 3, 3]], np.float32)).defer.any()


def test_infinite_logits_are_not_trusted() -> None:
    found = predict(np.array([[1, np.inf, 0], [0, -np.inf, 1]], np.float32), 1.0, 0.1)
    assert found.classes.tolist() == [1, 2]
    assert found.probability.tolist() == found.margin.tolist() == [0.0, 0.0]
    assert found.defer.all()


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 2)])
def test_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 classes at least"):
        predict(np.zeros(shape, np.float32))
