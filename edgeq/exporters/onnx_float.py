"""The float graph as an ONNX model, for ONNX Runtime to execute: calibration, references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Graph, Tensor
from edgeq.ir.names import take_name
from edgeq.ir.tensor import Array
from edgeq.ops import get

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The first with Gelu; the operators' `to_onnx` rows are written for it."""

PREACTIVATION = ".preactivation"
"""Suffix of what a node with a fused clamp computes before the clamp."""


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A float ONNX model and where the values of the graph are in it.

    Attributes:
        proto: The model; its batch axis is free and named `batch`.
        preactivations: By output tensor of a node with a fused clamp: the ONNX value before the clamp.
    """

    proto: onnx.ModelProto
    preactivations: dict[str, str]


@dataclass(slots=True)
class ModelSink:
    """Collects ONNX nodes and initializers; an `edgeq.ops.base.OnnxSink`.

    Attributes:
        taken: Every value name in use.
        nodes: In execution order.
        initializers: In order of creation.
        renamed: What `fresh` returned for each stem.
    """

    taken: set[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    node_names: set[str] = field(default_factory=set)

    def emit(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any) -> None:
        """Appends a node; its name gets a number where another node has it already."""
        import onnx

        unique = take_name(name, self.node_names)
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), list(outputs), unique, **attributes))

    def initializer(self, stem: str, value: Array) -> str:
        """Adds an initializer and returns its name."""
        import onnx

        name = self.fresh(stem)
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def fresh(self, stem: str) -> str:
        """Returns an unused value name: the stem, or the stem and a number."""
        name = take_name(stem, self.taken)
        self.renamed[stem] = name
        return name


def to_float_onnx(graph: Graph, outputs: Sequence[str] | None = None, *, before_clamps: bool = False) -> FloatModel:
    """Writes a float NCHW graph as an ONNX model through the operators' `to_onnx` rows.

    Args:
        graph: A float graph in NCHW.
        outputs: Computed activations to give, in that order; the graph's own outputs without it.
        before_clamps: Whether to give these outputs as they are before their nodes' fused clamps.

    Raises:
        GraphError: If the graph is quantized or NHWC, or an operator has no ONNX row.
    """
    import onnx

    if graph.layout != "nchw" or any(tensor.quant is not None for tensor in graph.tensors.values()):
        raise GraphError(f"graph {graph.name} must be float and NCHW to be written as a float ONNX model")
    wanted = list(graph.outputs if outputs is None else outputs)
    sink = ModelSink(set(graph.tensors))
    sink.initializers = [
        onnx.numpy_helper.from_array(tensor.data, name)
        for name, tensor in graph.tensors.items()
        if tensor.data is not None
    ]
    before: dict[str, str] = {}
    for node in graph.nodes:
        get(node.op).to_onnx(sink, node, graph)
        for name in node.outputs:
            if name + PREACTIVATION in sink.renamed:
                before[name] = sink.renamed[name + PREACTIVATION]
    infos = [value_info(graph.tensor(name), before.get(name, name) if before_clamps else name) for name in wanted]
    used = {name for node in sink.nodes for name in node.input}
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            sink.nodes,
            graph.name,
            [value_info(graph.tensor(name), name) for name in graph.inputs],
            infos,
            [tensor for tensor in sink.initializers if tensor.name in used],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=10,
        producer_name="edgeq",
    )
    return FloatModel(proto, before)


def value_info(tensor: Tensor, name: str) -> onnx.ValueInfoProto:
    """Describes a tensor under another name; the free axis is called `batch`."""
    import onnx

    shape = ["batch" if size == BATCH else size for size in tensor.shape]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return onnx.helper.make_tensor_value_info(name, kind, shape)
