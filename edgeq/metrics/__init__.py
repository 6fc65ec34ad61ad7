"""Measures of accuracy, calibration, disagreement, uncertainty and error: pure functions of arrays."""

from __future__ import annotations

from edgeq.metrics import arrays
from edgeq.metrics.accuracy import brier_score, in_top_k, negative_log_likelihood, top_k_accuracy
from edgeq.metrics.calibration import (
    ReliabilityBin,
    adaptive_calibration_error,
    classwise_calibration_error,
    debiased_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_bins,
)
from edgeq.metrics.conformal import conformal_rank, coverage_interval
from edgeq.metrics.detection import (
    auroc,
    average_precision,
    catching_threshold,
    logistic_auroc,
    roc_curve,
    true_negative_rate,
)
from edgeq.metrics.disagreement import (
    DisagreementSplit,
    disagreement_rate,
    disagreement_split,
    kl_divergences,
    largest_probability_change,
    top_k_overlap,
)
from edgeq.metrics.intervals import mcnemar_p, paired_difference_interval, wilson_interval
from edgeq.metrics.probability import log_softmax, predicted_class, softmax, tie_rate
from edgeq.metrics.resampling import (
    RESAMPLES,
    bootstrap_interval,
    mean_interval,
    percentile_interval,
    resample_counts,
    resampled_adaptive_error,
    resampled_auroc,
    resampled_classwise_error,
    resampled_debiased_error,
    resampled_ece,
    resampled_mce,
)
from edgeq.metrics.temperature import fit_temperature
from edgeq.metrics.tensor_error import cosine_similarity, largest_error_steps, sqnr_db
from edgeq.metrics.uncertainty import (
    UNCERTAINTY_SCORES,
    entropy_uncertainty,
    gini_uncertainty,
    least_confidence,
    margin_uncertainty,
)

__all__ = [
    "arrays",
    "DisagreementSplit",
    "RESAMPLES",
    "ReliabilityBin",
    "UNCERTAINTY_SCORES",
    "adaptive_calibration_error",
    "auroc",
    "average_precision",
    "bootstrap_interval",
    "brier_score",
    "catching_threshold",
    "classwise_calibration_error",
    "conformal_rank",
    "cosine_similarity",
    "coverage_interval",
    "debiased_calibration_error",
    "disagreement_rate",
    "disagreement_split",
    "entropy_uncertainty",
    "expected_calibration_error",
    "fit_temperature",
    "gini_uncertainty",
    "in_top_k",
    "kl_divergences",
    "largest_error_steps",
    "largest_probability_change",
    "least_confidence",
    "log_softmax",
    "logistic_auroc",
    "margin_uncertainty",
    "maximum_calibration_error",
    "mcnemar_p",
    "mean_interval",
    "negative_log_likelihood",
    "paired_difference_interval",
    "percentile_interval",
    "predicted_class",
    "reliability_bins",
    "resample_counts",
    "resampled_adaptive_error",
    "resampled_auroc",
    "resampled_debiased_error",
    "resampled_classwise_error",
    "resampled_ece",
    "resampled_mce",
    "roc_curve",
    "softmax",
    "sqnr_db",
    "tie_rate",
    "top_k_accuracy",
    "top_k_overlap",
    "true_negative_rate",
    "wilson_interval",
]
