"""Proves what quantization did: a quantized model beside its float model, as a table, JSON and one page."""

from __future__ import annotations

from edgeq.verification.compare import Comparison, Disagreement, Quality, compare
from edgeq.verification.table import format_table
from edgeq.verification.verify import Provenance, Verification, verify

__all__ = [
    "Comparison",
    "Disagreement",
    "Provenance",
    "Quality",
    "Verification",
    "compare",
    "format_table",
    "verify",
]
