"""Rectified linear unit, alone (a fused one is the clamp of its producer)."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TfliteSink, TorchTensor, register
from edgeq.ops.unary import Unary


@register
class Relu(Unary):
    """y = max(x, 0)."""

    name = "relu"
    onnx_types = ("Relu",)

    def function(self, x: Array, node: Node) -> Array:
        return np.maximum(x, 0)

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        return x.relu()

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Relu", list(node.inputs), list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        sink.emit("RELU", list(node.inputs), list(node.outputs), version=2)
