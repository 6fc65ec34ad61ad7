"""Where a float model comes from: a file, a factory, a module, or the embedded demo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edgeq.data import Preprocessing
from edgeq.errors import ImportModelError, UsageError
from edgeq.ir import Graph
from edgeq.ir.tensor import Array
from edgeq.quantize import Change, Scheme


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A float model, read.

    Attributes:
        name: Shown to the user.
        graph: The imported graph (float, NCHW).
        onnx: The model as ONNX: what quantized outputs are compared with.
        labels: Class names where the source knows them.
        preprocessing: How an image becomes the input where the source knows it.
        notes: Sentences about where the graph does not do literally what the source says.
    """

    name: str
    graph: Graph
    onnx: bytes
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class TrainedModel(Protocol):
    """A model that was trained with quantization and knows its integers (`edgeq.prepare_qat`).

    Attributes:
        name: Shown to the user.
        scheme: What was asked for.
        source: The float model that it was prepared from, as an ONNX file.
        changes: Where it differs from the scheme.
    """

    name: str
    scheme: Scheme
    source: bytes
    changes: tuple[Change, ...]

    def quantized_graph(self) -> Graph:
        """The integers, as a checked quantized NCHW graph."""
        ...

    def statistics(self) -> Sequence[dict[str, Any]]:
        """A dictionary of plain values for each layer with weights."""
        ...

    def examples(self) -> Array | None:
        """A few inputs, float32, on which files can be compared."""
        ...


def load_model(model: Any, example_input: Callable[[], Any]) -> FloatModel:
    """Reads a model for `edgeq.export`, which documents the forms.

    Args:
        model: The model in one of those forms.
        example_input: Gives inputs for a torch module; not called for other forms.

    Raises:
        ImportModelError: If the model cannot be read.
        UsageError: If the form is unknown.
    """
    if model is None:
        from edgeq.zoo.demo import DEMO_LABELS, DEMO_NAME, DEMO_PREPROCESSING, demo_path

        found = _from_file(demo_path())
        return FloatModel(DEMO_NAME, found.graph, found.onnx, tuple(DEMO_LABELS), DEMO_PREPROCESSING)
    if isinstance(model, (str, Path)):
        return _from_name(str(model), example_input)
    if hasattr(model, "SerializeToString"):
        return _from_onnx(model.graph.name or "model", model.SerializeToString())
    return _from_torch(model, example_input())


def _from_name(name: str, example_input: Callable[[], Any]) -> FloatModel:
    path = Path(name)
    if path.exists() or path.suffix.lower() in (".onnx", ".pt2", ".tflite"):
        return _from_file(path)
    if ":" in name:
        return _from_torch(name, example_input())
    raise UsageError(
        f"there is no model {name!r}: give a .onnx or .tflite file, a .pt2 file (torch.export.save) or "
        "package.module:factory"
    )


def _from_file(path: Path) -> FloatModel:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ImportModelError(f"{path}: there is no such file")
    if suffix == ".onnx":
        from edgeq.importers.onnx_file import file_bytes

        return _from_onnx(path.stem, file_bytes(path))
    if suffix == ".pt2":
        return _from_torch(path)
    if suffix == ".tflite":
        from edgeq.exporters.onnx_float import to_float_onnx
        from edgeq.importers import from_tflite

        graph = from_tflite.load(path)
        return FloatModel(path.stem, graph, to_float_onnx(graph).proto.SerializeToString())
    raise ImportModelError(
        f"{path}: a file of type {suffix or 'unknown'} is no model that edgeq reads; give .onnx, .tflite or .pt2 "
        "(for a .pt or .pth file name the function that builds the module: package.module:factory)"
    )


def _from_torch(model: Any, example_input: Any = None) -> FloatModel:
    from edgeq.importers import from_torch

    name, data = from_torch.to_onnx(model, example_input)
    return _from_onnx(name, data, name)


def _from_onnx(name: str, data: bytes, graph_name: str | None = None) -> FloatModel:
    from edgeq.importers import from_onnx

    model = from_onnx.read(data, graph_name)
    return FloatModel(name, model.graph, data, notes=tuple(f"{node}: {sentence}" for node, sentence in model.notes))
