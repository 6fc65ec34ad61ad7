from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics


def sample(temperature: float, n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose honest probabilities are softmax(logits / temperature), and labels drawn from those."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n, 5)) * 3
    chances = metrics.softmax(logits / temperature).cumsum(axis=1)
    chances[:, -1] = 1.0
    return logits, (rng.random((n, 1)) < chances).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_finds_the_temperature(temperature: float) -> None:
    logits, labels = sample(temperature)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_is_the_minimum_of_the_likelihood() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits, labels = sample(1.7, n=300)
    fitted = metrics.fit_temperature(logits, labels)

    def loss(log_t: float) -> float:
        return metrics.negative_log_likelihood(logits / np.exp(log_t), labels)

    found = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    assert np.log(fitted) == pytest.approx(found.x, abs=1e-6)
    assert loss(np.log(fitted)) <= loss(0.0)


def test_equals_scikit_learn() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("this scikit-learn has no temperature scaling")
    logits, labels = sample(2.0, n=500)
    fitted = calibration._TemperatureScaling().fit(logits, labels)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(1 / fitted.beta_, rel=1e-4)


def test_degenerate_inputs_stay_within_bounds() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 3.0]])
    assert metrics.fit_temperature(logits, np.array([0, 1])) == 0.01  # all right
    assert metrics.fit_temperature(logits, np.array([1, 0])) == 100.0  # all wrong
    assert metrics.fit_temperature(np.zeros((2, 2)), np.array([1, 0])) == 100.0  # logits say nothing
    assert metrics.fit_temperature(np.array([[5e300, 0.0], [0.0, 1.0]]), np.array([0, 1])) == 0.01


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        metrics.fit_temperature(np.array([[np.nan, 1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="labels"):
        metrics.fit_temperature(np.zeros((2, 3)), np.array([0, 3]))
