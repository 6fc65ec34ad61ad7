"""TFLite models: the quantized channels-last graph as builtin operators, for LiteRT and tflite-runtime."""

from __future__ import annotations

from edgeq.exporters.tflite.export import TfliteModel, to_tflite

__all__ = ["TfliteModel", "to_tflite"]
