"""Post-training quantization: schemes, policy, observers, calibration, weights, bias correction."""

from __future__ import annotations

from edgeq.quantize.calibrate import DEFAULT_SAMPLES, Calibration, calibrate
from edgeq.quantize.observers import OBSERVERS
from edgeq.quantize.policy import Change
from edgeq.quantize.quantize import QuantizedModel, QuantizeOptions, quantize
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.scheme import SCHEMES, Scheme
from edgeq.quantize.weights import WEIGHT_OBSERVERS

__all__ = [
    "DEFAULT_SAMPLES",
    "OBSERVERS",
    "SCHEMES",
    "WEIGHT_OBSERVERS",
    "Calibration",
    "Change",
    "QuantizeOptions",
    "QuantizedModel",
    "Recipe",
    "Scheme",
    "calibrate",
    "quantize",
]
