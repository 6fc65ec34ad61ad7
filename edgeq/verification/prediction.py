"""Whether a model's own uncertainty tells on which inputs quantization changed its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgeq import metrics

_CURVE_POINTS = 200


@dataclass(frozen=True, slots=True)
class ScorePrediction:
    """How well one uncertainty score predicts disagreement. Every figure is None where nothing, or everything,
    disagrees.

    Attributes:
        auroc: Chance that a disagreeing input has the higher score.
        auroc_interval: 95 % interval of it, by bootstrap.
        auprc: Average precision; compare it with the base rate.
        tnr95: Share of agreeing inputs below the threshold that catches 95 % of the disagreeing ones.
        logistic_auroc: AUROC of a logistic regression on the score, on inputs that it was not fitted on.
        curve: False and true positive rates of the ROC curve, at most a few hundred points.
    """

    auroc: float | None
    auroc_interval: tuple[float, float] | None
    auprc: float | None
    tnr95: float | None
    logistic_auroc: float | None
    curve: tuple[tuple[float, float], ...] | None


@dataclass(frozen=True, slots=True)
class DisagreementPrediction:
    """The four uncertainty scores of one model as predictors of disagreement (Hu et al. 2022, arXiv 2204.04220).

    Attributes:
        base_rate: Share of inputs that disagree.
        quantized: By name of the score, from the quantized model's probabilities: what a device has.
        reference: The same from the float model's.
    """

    base_rate: float
    quantized: Mapping[str, ScorePrediction]
    reference: Mapping[str, ScorePrediction]

    def best(self) -> str | None:
        """The score of the quantized model with the highest AUROC, or None where nothing disagrees."""
        known = {name: one.auroc for name, one in self.quantized.items() if one.auroc is not None}
        return max(known, key=lambda name: known[name]) if known else None

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values, without the curves."""
        return {
            "base_rate": self.base_rate,
            "quantized": {name: _figures(one) for name, one in self.quantized.items()},
            "reference": {name: _figures(one) for name, one in self.reference.items()},
        }


def _figures(one: ScorePrediction) -> dict[str, Any]:
    values = asdict(one)
    del values["curve"]
    return values


def predict_disagreement(reference_logits: ArrayLike, quantized_logits: ArrayLike) -> DisagreementPrediction | None:
    """Scores every input by both models' uncertainty and judges the scores by where the models disagree.

    Args:
        reference_logits: The float model's, finite, shape (n, classes).
        quantized_logits: The quantized model's, finite, shape (n, classes).

    Returns:
        The prediction, or None for models of one class, which have no uncertainty.

    Raises:
        ValueError: If the arrays are empty, not finite or of different shapes.
    """
    rows = metrics.arrays.checked_scores(reference_logits), metrics.arrays.checked_scores(quantized_logits)
    if rows[0].shape[1] < 2:
        return None
    disagrees = metrics.predicted_class(rows[0]) != metrics.predicted_class(rows[1])
    predictions = []
    for logits in rows:
        probabilities = metrics.softmax(logits)
        scores = {name: score(probabilities) for name, score in metrics.UNCERTAINTY_SCORES.items()}
        predictions.append({name: _judge(values, disagrees) for name, values in scores.items()})
    return DisagreementPrediction(float(disagrees.mean()), quantized=predictions[1], reference=predictions[0])


def _judge(scores: metrics.arrays.Floats, disagrees: metrics.arrays.Bools) -> ScorePrediction:
    areas = metrics.resampled_auroc(scores, disagrees)
    curve = metrics.roc_curve(scores, disagrees)
    points = None
    if curve is not None:
        kept = np.unique(np.linspace(0, len(curve[0]) - 1, _CURVE_POINTS).round().astype(int))
        points = tuple((float(curve[0][i]), float(curve[1][i])) for i in kept)
    return ScorePrediction(
        auroc=metrics.auroc(scores, disagrees),
        auroc_interval=None if areas is None else metrics.percentile_interval(areas),
        auprc=metrics.average_precision(scores, disagrees),
        tnr95=metrics.true_negative_rate(scores, disagrees),
        logistic_auroc=metrics.logistic_auroc(scores, disagrees),
        curve=points,
    )
