"""What add, sub and mul share: broadcasting, the fused clamp, constant operands, the ONNX rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    NO_CLAMP,
    Clamp,
    OnnxSink,
    OnnxSource,
    Operator,
    Shape,
    TfliteSink,
    TorchTensor,
    attrs_of,
    operand,
    torch_clamp,
    torch_operand,
)
from edgeq.ops.conv import emit_clamp


@dataclass(frozen=True, slots=True)
class ElementwiseAttrs(Attrs):
    """Attributes of `add`, `sub` and `mul`.

    Attributes:
        clamp: Fused activation: real bounds of the output.
    """

    clamp: Clamp = NO_CLAMP


def broadcast_shapes(a: Shape, b: Shape, where: str) -> Shape:
    """Returns the numpy broadcast of two shapes, in which only axis 0 of the result may be BATCH."""
    rank = max(len(a), len(b))
    out = []
    for axis, (p, q) in enumerate(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=False)):
        if (p != q and 1 not in (p, q)) or (BATCH in (p, q) and axis):
            raise GraphError(f"{where}: shapes {list(a)} and {list(b)} do not broadcast (the batch is axis 0 of both)")
        out.append(q if p == 1 else p)
    return tuple(out)


class Elementwise(Operator):
    """Base of the two-input operators. Inputs: a, b; one of them may be a constant (int8, per tensor, if quantized)."""

    attrs_type = ElementwiseAttrs
    onnx_op: ClassVar[str]

    @abstractmethod
    def function(self, a: Array, b: Array) -> Array:
        """The float statement without the clamp, of numpy arrays and of torch tensors alike."""

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        a, b = (graph.tensor(name) for name in node.inputs)
        if a.is_constant and b.is_constant:
            raise GraphError(f"{node.name}: {node.op} of two constants")
        attrs_of(node, ElementwiseAttrs)
        return [(broadcast_shapes(a.shape, b.shape, node.name), "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        low, high = attrs_of(node, ElementwiseAttrs).clamp
        y = self.function(operand(values, 0), operand(values, 1))
        if (low, high) != NO_CLAMP:
            y = np.clip(y, low, high)
        return [y.astype(np.float32, copy=False)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        y = self.function(torch_operand(values, 0), torch_operand(values, 1))
        return [torch_clamp(y, attrs_of(node, ElementwiseAttrs).clamp)]

    def check_quant(self, node: Node, graph: Graph) -> None:
        for name in node.inputs:
            tensor = graph.tensor(name)
            if tensor.dtype != "int8" or graph.quant(name).axis is not None:
                raise GraphError(f"{node.name}: operand {name!r} must be int8 with per-tensor quantization")

    def operands_from_onnx(self, source: OnnxSource, node: Any, name: str) -> list[str]:
        """Returns the two operands; a constant one gets the full rank of the other."""
        constants = [source.constant_input(node, i) for i in range(2)]
        ranks = [len(source.graph.tensor(node.input[i]).shape) for i in range(2) if constants[i] is None]
        inputs = []
        for i, value in enumerate(constants):
            if value is None:
                inputs.append(node.input[i])
                continue
            if value.size == 1:
                value = value.reshape((1,) * max(ranks))
            elif value.ndim < max(ranks):
                value = value.reshape((1,) * (max(ranks) - value.ndim) + value.shape)
            inputs.append(source.add_constant(f"{name}.constant", value.astype(np.float32)))
        return inputs

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        name = source.name_of(node)
        source.emit(self.name, name, self.operands_from_onnx(source, node, name), [node.output[0]], ElementwiseAttrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        clamp = attrs_of(node, ElementwiseAttrs).clamp
        raw = node.outputs[0] if clamp == NO_CLAMP else sink.fresh(f"{node.outputs[0]}.preactivation")
        sink.emit(self.onnx_op, list(node.inputs), [raw], node.name)
        emit_clamp(sink, clamp, raw, node.outputs[0], node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        clamp = attrs_of(node, ElementwiseAttrs).clamp
        sink.emit(
            self.onnx_op.upper(),
            list(node.inputs),
            list(node.outputs),
            version=self.tflite_version(node, graph),
            clamp=clamp,
        )

    def tflite_version(self, node: Node, graph: Graph) -> int:
        """The version of the builtin operator that this node needs."""
        return 2
