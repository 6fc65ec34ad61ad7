"""Softmax, with float32 probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node, QuantParams
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
class SoftmaxAttrs(Attrs):
    """Attributes of `softmax`.

    Attributes:
        axis: Positive, in the graph's own layout.
    """

    axis: int


def softmax_table(scale: float) -> npt.NDArray[np.int64]:
    """t[d] = rne(exp(-scale * d) * 2^40) for d in 0..255, in float64; `scale` is the float32 scale of the input."""
    return np.rint(np.exp(-float(scale) * np.arange(256, dtype=np.float64)) * 2.0**40).astype(np.int64)


@register
class Softmax(Operator):
    """y = exp(x - max) / sum exp(x - max) along `axis`; the output of a quantized node is float32.

    Inputs: x; in a lowered graph also the constant `softmax_table` of its scale.
    """

    name = "softmax"
    attrs_type = SoftmaxAttrs
    quant_rule = QuantRule.FLOAT
    onnx_types = ("Softmax",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        axis, shape = attrs_of(node, SoftmaxAttrs).axis, graph.tensor(node.inputs[0]).shape
        if not 0 < axis < len(shape):
            raise GraphError(f"{node.name}: softmax over axis {axis} of {list(shape)}; it must lie behind the batch")
        return [(shape, "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        axis, x = attrs_of(node, SoftmaxAttrs).axis, operand(values, 0).astype(np.float64)
        powers = np.exp(x - x.max(axis=axis, keepdims=True))
        return [(powers / powers.sum(axis=axis, keepdims=True)).astype(np.float32)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        return [torch_operand(values, 0).softmax(attrs_of(node, SoftmaxAttrs).axis)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        axis, q = attrs_of(node, SoftmaxAttrs).axis, operand(values, 0).astype(np.int64)
        stored = values[1] if len(values) > 1 else None
        table = softmax_table(float(graph.quant(node.inputs[0]).scale)) if stored is None else stored
        powers = table[q.max(axis=axis, keepdims=True) - q]
        total = powers.sum(axis=axis, keepdims=True, dtype=np.int64)
        return [(powers.astype(np.float64) / total.astype(np.float64)).astype(np.float32)]

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        rank = len(source.graph.tensor(node.input[0]).shape)
        axis = int(source.attribute(node, "axis", -1)) % rank
        if axis == 0:
            raise source.fail(node, "it normalises over the batch axis")
        source.emit("softmax", source.name_of(node), [node.input[0]], [node.output[0]], SoftmaxAttrs(axis))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        axis = attrs_of(node, SoftmaxAttrs).axis
        sink.emit("Softmax", list(node.inputs), list(node.outputs), node.name, axis=axis)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """SOFTMAX of the real values, or with integer ends of the codes; another axis than the last is turned there."""
        x, y, shape = node.inputs[0], node.outputs[0], graph.tensor(node.outputs[0]).shape
        integer = sink.integer_ends
        if integer:
            sink.redefine(y, QuantParams.per_tensor(1 / 256, -128))
        else:
            x = sink.activation(f"{x}.real", shape, None, "float32")
            sink.emit("DEQUANTIZE", [node.inputs[0]], [x], version=2)
        axis, last, out = attrs_of(node, SoftmaxAttrs).axis, len(shape) - 1, y
        order = list(range(len(shape)))
        order[axis], order[last] = last, axis  # a swap is its own inverse
        if axis != last:
            turned, source = [shape[i] for i in order], sink.tensor(x)
            x = sink.activation(f"{x}.turned", turned, source.quant, source.dtype)
            transposed(sink, source.name, x, order)
            out = sink.activation(f"{y}.turned", turned, sink.tensor(y).quant, sink.tensor(y).dtype)
        sink.emit("SOFTMAX", [x], [out], version=2 if integer else 1, beta=1.0)
        if axis != last:
            transposed(sink, out, y, order)
