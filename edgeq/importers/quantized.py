"""Models that another tool has quantized, of either format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import ImportModelError
from edgeq.ir import Graph
from edgeq.ir.tensor import Array


@dataclass(frozen=True, slots=True)
class QuantizedSource:
    """A quantized model, read with its own scales, zero points and codes.

    Attributes:
        name: Shown to the user.
        graph: Quantized, NCHW.
        notes: Sentences about where the graph does not do literally what the file says.
        content: The file.
        suffix: ".onnx" or ".tflite".
    """

    name: str
    graph: Graph
    notes: tuple[str, ...]
    content: bytes
    suffix: str


def is_quantized(path: Path) -> bool:
    """Whether a file is a quantized model: a .onnx with quantized operators, or a .tflite with integer activations.

    Raises:
        ImportModelError: If it is malformed.
    """
    if path.suffix.lower() == ".onnx":
        from edgeq.importers import from_quantized_onnx

        return from_quantized_onnx.is_quantized(path)
    if path.suffix.lower() == ".tflite":
        from edgeq.importers import from_tflite

        return from_tflite.read(path).quantized
    return False


def load(path: Path, samples: Mapping[str, Array] | None = None) -> QuantizedSource:
    """Reads a quantized model.

    Args:
        path: A .onnx or .tflite file.
        samples: A batch of float32 inputs by name, for .onnx models that leave tensors in float which edgeq computes in
            integers.

    Raises:
        ImportModelError: If it is malformed, not quantized, or cannot be expressed in integers.
    """
    if path.suffix.lower() == ".tflite":
        from edgeq.importers import from_tflite

        model = from_tflite.read(path)
        if not model.quantized:
            raise ImportModelError(f"{path}: is a float model; quantize it with `edgeq export`")
        return QuantizedSource(path.stem, model.graph, _sentences(model.notes), path.read_bytes(), ".tflite")
    from edgeq.importers import from_quantized_onnx
    from edgeq.importers.onnx_file import file_bytes

    found = from_quantized_onnx.load(path, path.stem, samples)
    return QuantizedSource(path.stem, found.graph, _sentences(found.notes), file_bytes(path), ".onnx")


def _sentences(notes: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return tuple(f"{node}: {sentence}" for node, sentence in notes)
