"""Concatenation along an axis other than the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    NO_CLAMP,
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


@dataclass(frozen=True, slots=True)
class ConcatAttrs(Attrs):
    """Attributes of `concat`.

    Attributes:
        axis: Positive, in the graph's own layout.
    """

    axis: int


@register
class Concat(Operator):
    """y = the inputs one after the other along `axis`. Inputs: one or more activations."""

    name = "concat"
    attrs_type = ConcatAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("Concat",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        axis = attrs_of(node, ConcatAttrs).axis
        shapes = [graph.tensor(name).shape for name in node.inputs]
        first = shapes[0]
        if not 0 < axis < len(first) or any(
            len(s) != len(first) or s[:axis] + s[axis + 1 :] != first[:axis] + first[axis + 1 :] for s in shapes
        ):
            raise GraphError(f"{node.name}: shapes {[list(s) for s in shapes]} do not concatenate along axis {axis}")
        return [((*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :]), "float32")]

    def _run(self, node: Node, values: Sequence[Array | None]) -> list[Array]:
        parts = [operand(values, i) for i in range(len(values))]
        return [np.concatenate(parts, axis=attrs_of(node, ConcatAttrs).axis)]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        parts = [torch_operand(values, i) for i in range(len(values))]
        return [torch.cat(parts, attrs_of(node, ConcatAttrs).axis)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        for i in range(len(node.input)):
            if source.constant_input(node, i) is not None:
                raise source.fail(node, f"input {i} is constant; only activations can be concatenated")
        rank = len(source.graph.tensor(node.input[0]).shape)
        axis = int(source.attribute(node, "axis", 0)) % rank
        if axis == 0:
            raise source.fail(node, "it concatenates along the batch axis")
        source.emit("concat", source.name_of(node), list(node.input), [node.output[0]], ConcatAttrs(axis))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Concat", list(node.inputs), list(node.outputs), node.name, axis=attrs_of(node, ConcatAttrs).axis)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        axis = attrs_of(node, ConcatAttrs).axis
        sink.emit("CONCATENATION", list(node.inputs), list(node.outputs), version=2, axis=axis, clamp=NO_CLAMP)
