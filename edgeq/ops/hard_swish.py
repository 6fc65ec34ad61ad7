"""Piecewise approximation of SiLU (Howard et al. 2019, arXiv 1905.02244)."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TfliteSink, register
from edgeq.ops.unary import Unary


@register
class HardSwish(Unary):
    """y = x * clip(x / 6 + 1 / 2, 0, 1)."""

    name = "hard_swish"
    onnx_types = ("HardSwish",)

    def function(self, x: Array, node: Node) -> Array:
        return np.asarray(x * np.clip(x * x.dtype.type(1.0 / 6.0) + x.dtype.type(0.5), 0, 1))

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("HardSwish", list(node.inputs), list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        sink.emit("HARD_SWISH", list(node.inputs), list(node.outputs))
