"""Quantization-aware training: a float model as a torch module that rounds in training as it will when shipped."""

from __future__ import annotations

from edgeq.qat.prepare import prepare_qat

__all__ = ["prepare_qat"]
