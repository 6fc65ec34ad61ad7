"""From a quantized channels-last graph to the bytes of a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeq.errors import GraphError, QuantizationError
from edgeq.exporters.tflite.builder import ModelBuilder
from edgeq.ir import Graph
from edgeq.ops import get
from edgeq.ops.base import Int4Storage
from edgeq.ops.check import check_graph

Ends = Literal["float", "int8"]


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """A .tflite file and what is to be said about it.

    Attributes:
        data: The file.
        operators: How many operators of each builtin it has, by name.
        notes: Sentences about single layers, for the export's summary.
        widened: Layers whose 4-bit weights are stored as int8.
        fixed_batch: Whether it takes batch 1 only.
    """

    data: bytes
    operators: Mapping[str, int]
    notes: tuple[str, ...]
    widened: tuple[str, ...]
    fixed_batch: bool


def to_tflite(
    graph: Graph,
    *,
    ends: Ends = "float",
    int4: Int4Storage = Int4Storage.FAST,
    metadata: Mapping[str, Any] | None = None,
) -> TfliteModel:
    """Writes a quantized graph as a TFLite model.

    Inputs and outputs keep their names (in the signature `serving_default`) and are NHWC: rank-4 ends of an NCHW
    source have their channels last in the file, and no operator turns them.

    Args:
        graph: Quantized and NHWC, as `channels_last` gives it, before `lower`: the builtin operator of a function
            is faster than its table.
        ends: "float" for float32 inputs and outputs (QUANTIZE and DEQUANTIZE in the file), "int8" for codes.
        int4: Which 4-bit weights are stored packed.
        metadata: JSON-serializable; stored as the metadata buffer "edgeq" (labels, normalisation and whatever the
            export knows). TFLite's own metadata form has no packer in a maintained library without TensorFlow.

    Returns:
        The file; the same arguments give the same bytes.

    Raises:
        QuantizationError: If the graph has 4-bit activations, which TFLite has not, or a node no form there.
        GraphError: If the graph is float or NCHW.
        BackendError: If ai-edge-litert is not installed.
    """
    if graph.layout != "nhwc" or graph.tensor(graph.inputs[0]).quant is None:
        raise GraphError(f"graph {graph.name} must be quantized and channels-last to be written as a TFLite model")
    check_graph(graph)
    _refuse_4bit_activations(graph)
    builder = ModelBuilder(graph, ends == "int8", int4)
    for node in graph.nodes:
        get(node.op).to_tflite(builder, node, graph)
    data = builder.finish(metadata)
    operators = dict(sorted(builder.operators.items()))
    notes = list(builder.notes)
    if builder.widened:
        found = f"{len(builder.widened)} layers store their 4-bit weights as int8 ({builder.widened[0]} first)"
        notes.append(f"{found}: {_WHY_WIDE[int4]}")
    return TfliteModel(data, operators, tuple(notes), tuple(builder.widened), builder.fixed_batch)


_WHY_WIDE = {
    Int4Storage.FAST: "LiteRT's fast and exact 4-bit kernels are for 1x1 convolutions and linear layers with an even "
    "number of inputs.",
    Int4Storage.PACKED: "TRANSPOSE_CONV has no 4-bit form.",
    Int4Storage.OLD: "TRANSPOSE_CONV has no 4-bit form.",
    Int4Storage.NONE: "as asked.",
}


def _refuse_4bit_activations(graph: Graph) -> None:
    narrow = [t.name for t in graph.activations() if t.quant is not None and t.quant.bits == 4]
    if narrow:
        raise QuantizationError(
            f"{len(narrow)} activations have 4 bits ({narrow[0]!r} first), and TFLite has none: its 4-bit type "
            "is for weights only. Quantize with --bits w4a8 for TFLite, or export w4a4 to .edgeq and ONNX (--to "
            "edgeq,onnx)."
        )
