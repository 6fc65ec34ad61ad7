"""Logistic function."""

from __future__ import annotations

from typing import Any

from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, QuantRule, TfliteSink, TorchTensor, register
from edgeq.ops.unary import Unary, sigmoid


@register
class Sigmoid(Unary):
    """y = 1 / (1 + exp(-x)); its output always has the range [0, 1)."""

    name = "sigmoid"
    quant_rule = QuantRule.FIXED
    onnx_types = ("Sigmoid",)

    def function(self, x: Array, node: Node) -> Array:
        return sigmoid(x)

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        return x.sigmoid()

    def fixed_range(self, node: Node) -> tuple[float, float] | None:
        return 0.0, 1.0

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Sigmoid", list(node.inputs), list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        if graph.quant(node.outputs[0]).same_as(QuantParams.per_tensor(1 / 256, -128)):
            sink.emit("LOGISTIC", list(node.inputs), list(node.outputs), version=2)
        else:
            super().to_tflite(sink, node, graph)  # the builtin has this one output quantization
