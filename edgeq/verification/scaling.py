"""Temperature scaling of both models, fitted on inputs that are not reported on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeq import metrics
from edgeq.metrics import ReliabilityBin

FEWEST = 50
"""Inputs that a temperature is fitted on, at least: one number needs little, but not nothing."""


@dataclass(frozen=True, slots=True)
class ScaledRow:
    """One model under one temperature, on the inputs that were not fitted on.

    Attributes:
        temperature: Logits are divided by it; 1 leaves them.
        ece: Expected calibration error, 15 equal-width bins.
        ece_interval: 95 % interval of it, by bootstrap.
        nll: Negative log-likelihood in nats.
        brier: Mean squared distance to the one-hot label.
        mean_confidence: Mean top-1 probability.
        bins: The reliability diagram.
    """

    temperature: float
    ece: float
    ece_interval: tuple[float, float]
    nll: float
    brier: float
    mean_confidence: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class TemperatureScaling:
    """What temperature scaling does (Guo et al. 2017, arXiv 1706.04599).

    Attributes:
        fitted_on: Number of inputs that the temperatures were fitted on.
        tested_on: Number of others that the rows are computed from.
        rows: By name: both models as they are, each with its own temperature, and the quantized model with the float
            model's, which is what whoever forgot to fit again would ship.
    """

    fitted_on: int
    tested_on: int
    rows: Mapping[str, ScaledRow]

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values."""
        return {
            "fitted_on": self.fitted_on,
            "tested_on": self.tested_on,
            "rows": {name: asdict(row) for name, row in self.rows.items()},
        }


def split(n: int, share: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to fit on and positions to test on, drawn by `seed`, each ascending.

    Args:
        n: Number of inputs.
        share: Of the inputs, to fit on; in (0, 1).
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(n)
    cut = round(share * n)
    return np.sort(order[:cut]).astype(np.int64), np.sort(order[cut:]).astype(np.int64)


def scale_temperatures(
    reference: ArrayLike, quantized: ArrayLike, labels: ArrayLike, share: float = 0.5, seed: int = 0
) -> TemperatureScaling | None:
    """Fits both temperatures on a share of the inputs and judges them on the rest.

    Args:
        reference: The float model's logits, finite, shape (n, classes).
        quantized: The quantized model's, the same shape.
        labels: Class indices, shape (n,).
        share: Of the inputs, to fit on; in (0, 1).
        seed: Of the draw of those inputs.

    Returns:
        The rows, or None where fewer than 50 inputs would be fitted on or none be left.
    """
    models = np.asarray(reference, np.float64), np.asarray(quantized, np.float64)
    truth = np.asarray(labels)
    fit, test = split(len(truth), share, seed)
    if len(fit) < FEWEST or len(test) == 0:
        return None
    own = [metrics.fit_temperature(logits[fit], truth[fit]) for logits in models]
    asked = {
        "FP32": (0, 1.0),
        "FP32, scaled": (0, own[0]),
        "quantized": (1, 1.0),
        "quantized, scaled": (1, own[1]),
        "quantized, FP32's temperature": (1, own[0]),
    }
    rows = {name: _row(models[index][test], truth[test], value) for name, (index, value) in asked.items()}
    return TemperatureScaling(len(fit), len(test), rows)


def _row(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> ScaledRow:
    scaled = logits / temperature
    probabilities = metrics.softmax(scaled)
    confidence = np.minimum(probabilities.max(axis=1), 1.0)
    correct = metrics.predicted_class(scaled) == labels
    return ScaledRow(
        temperature=temperature,
        ece=metrics.expected_calibration_error(confidence, correct),
        ece_interval=metrics.percentile_interval(metrics.resampled_ece(confidence, correct)),
        nll=metrics.negative_log_likelihood(scaled, labels),
        brier=metrics.brier_score(probabilities, labels),
        mean_confidence=float(confidence.mean()),
        bins=metrics.reliability_bins(confidence, correct),
    )
