"""Models of other tools as the bytes of a .edgeq file, so that edgeq's own backends run them directly."""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.importers import quantized
from edgeq.passes import channels_last, lower


def edgeq_bytes(path: Path) -> bytes:
    """Returns a .edgeq file as it is, and a quantized .onnx or .tflite file converted.

    Raises:
        UsageError: If the model is not quantized.
        ImportModelError: If it cannot be read.
    """
    if path.suffix.lower() not in (".onnx", ".tflite"):
        return path.read_bytes()
    if not quantized.is_quantized(path):
        raise UsageError(f"{path}: is a float model; quantize it first: edgeq export {path.name} --calib DATA -o DIR")
    return encode(lower(channels_last(quantized.load(path).graph)))
