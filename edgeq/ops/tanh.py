"""Hyperbolic tangent."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, QuantRule, TfliteSink, TorchTensor, register
from edgeq.ops.unary import Unary


@register
class Tanh(Unary):
    """y = tanh(x); its output always has the range [-1, 1)."""

    name = "tanh"
    quant_rule = QuantRule.FIXED
    onnx_types = ("Tanh",)

    def function(self, x: Array, node: Node) -> Array:
        return np.tanh(x)

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        return x.tanh()

    def fixed_range(self, node: Node) -> tuple[float, float] | None:
        return -1.0, 1.0

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Tanh", list(node.inputs), list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        if graph.quant(node.outputs[0]).same_as(QuantParams.per_tensor(1 / 128, 0)):
            sink.emit("TANH", list(node.inputs), list(node.outputs), version=2)
        else:
            super().to_tflite(sink, node, graph)  # the builtin has this one output quantization
