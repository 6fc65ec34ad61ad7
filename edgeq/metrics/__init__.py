"""Measures of accuracy, calibration, disagreement and error: pure functions of arrays."""

from __future__ import annotations

from edgeq.metrics import arrays
from edgeq.metrics.accuracy import brier_score, in_top_k, negative_log_likelihood, top_k_accuracy
from edgeq.metrics.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_bins,
)
from edgeq.metrics.disagreement import DisagreementSplit, disagreement_rate, disagreement_split
from edgeq.metrics.intervals import paired_difference_interval, wilson_interval
from edgeq.metrics.probability import log_softmax, predicted_class, softmax, tie_rate
from edgeq.metrics.tensor_error import sqnr_db

__all__ = [
    "arrays",
    "DisagreementSplit",
    "ReliabilityBin",
    "brier_score",
    "disagreement_rate",
    "disagreement_split",
    "expected_calibration_error",
    "in_top_k",
    "log_softmax",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "paired_difference_interval",
    "predicted_class",
    "reliability_bins",
    "softmax",
    "sqnr_db",
    "tie_rate",
    "top_k_accuracy",
    "wilson_interval",
]
