"""Permutation of the axes behind the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    OnnxSource,
    Operator,
    QuantRule,
    Shape,
    TfliteSink,
    TorchTensor,
    attrs_of,
    operand,
    register,
    torch_operand,
)
from edgeq.ops.tflite_forms import transposed


@dataclass(frozen=True, slots=True)
class TransposeAttrs(Attrs):
    """Attributes of `transpose`.

    Attributes:
        permutation: Output axis i is input axis permutation[i]; the first is 0.
    """

    permutation: tuple[int, ...]


@register
class Transpose(Operator):
    """y = x with its axes permuted."""

    name = "transpose"
    attrs_type = TransposeAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("Transpose",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        order, shape = attrs_of(node, TransposeAttrs).permutation, graph.tensor(node.inputs[0]).shape
        if sorted(order) != list(range(len(shape))) or not order or order[0] != 0:
            raise GraphError(f"{node.name}: permutation {list(order)} does not fit {list(shape)} with the batch first")
        return [(tuple(shape[axis] for axis in order), "float32")]

    def _run(self, node: Node, values: Sequence[Array | None]) -> list[Array]:
        return [np.ascontiguousarray(operand(values, 0).transpose(attrs_of(node, TransposeAttrs).permutation))]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        return [torch_operand(values, 0).permute(attrs_of(node, TransposeAttrs).permutation)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        rank = len(source.graph.tensor(node.input[0]).shape)
        order = tuple(int(v) for v in source.attribute(node, "perm", list(range(rank))[::-1]))
        if sorted(order) != list(range(rank)):
            raise source.fail(node, f"perm {list(order)} is not a permutation of {rank} axes")
        if order[0] != 0:
            raise source.fail(node, f"perm {list(order)} moves the batch axis")
        source.emit("transpose", source.name_of(node), [node.input[0]], [node.output[0]], TransposeAttrs(order))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        order = list(attrs_of(node, TransposeAttrs).permutation)
        sink.emit("Transpose", list(node.inputs), list(node.outputs), node.name, perm=order)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        transposed(sink, node.inputs[0], node.outputs[0], attrs_of(node, TransposeAttrs).permutation)
