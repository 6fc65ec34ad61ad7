"""Proves what quantization did: a quantized model beside its float model, as a table, JSON and one page."""

from __future__ import annotations

from edgeq.verification.compare import Change, Comparison, Disagreement, Quality, compare
from edgeq.verification.gates import GateResult, Gates, check_gates, junit_xml
from edgeq.verification.prediction import DisagreementPrediction, predict_disagreement
from edgeq.verification.scaling import TemperatureScaling, scale_temperatures
from edgeq.verification.table import format_table
from edgeq.verification.verify import Provenance, Verification, verify

__all__ = [
    "Change",
    "Comparison",
    "Disagreement",
    "DisagreementPrediction",
    "GateResult",
    "Gates",
    "Provenance",
    "Quality",
    "TemperatureScaling",
    "Verification",
    "check_gates",
    "compare",
    "format_table",
    "junit_xml",
    "predict_disagreement",
    "scale_temperatures",
    "verify",
]
