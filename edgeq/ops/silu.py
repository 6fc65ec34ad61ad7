"""Sigmoid linear unit, also called Swish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import NO_CLAMP, OnnxSink, OnnxSource, TfliteSink, attrs_of, register
from edgeq.ops.unary import Unary, sigmoid


@dataclass(frozen=True, slots=True)
class SiluAttrs(Attrs):
    """Attributes of `silu`.

    Attributes:
        alpha: Factor inside the sigmoid.
    """

    alpha: float = 1.0


@register
class Silu(Unary):
    """y = x * sigmoid(alpha * x)."""

    name = "silu"
    attrs_type = SiluAttrs
    onnx_types = ("Swish",)

    def function(self, x: Array, node: Node) -> Array:
        return x * sigmoid(x * x.dtype.type(attrs_of(node, SiluAttrs).alpha))

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, SiluAttrs(float(source.attribute(node, "alpha", 1.0))))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        inner, gate = node.inputs[0], sink.fresh(f"{node.outputs[0]}.gate")
        alpha = attrs_of(node, SiluAttrs).alpha
        if alpha != 1.0:
            inner = sink.fresh(f"{node.outputs[0]}.scaled")
            factor = sink.initializer(f"{node.name}.alpha", np.asarray(alpha, dtype=np.float32))
            sink.emit("Mul", [node.inputs[0], factor], [inner], f"{node.name}.scale")
        sink.emit("Sigmoid", [inner], [gate], f"{node.name}.gate")
        sink.emit("Mul", [node.inputs[0], gate], list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """LOGISTIC and MUL: the gate's rounding to 1/256 moves a result by one step at most."""
        if attrs_of(node, SiluAttrs).alpha != 1.0:
            super().to_tflite(sink, node, graph)
            return
        x, y = node.inputs[0], node.outputs[0]
        gate = sink.activation(f"{y}.gate", graph.tensor(y).shape, QuantParams.per_tensor(1 / 256, -128))
        sink.emit("LOGISTIC", [x], [gate], version=2)
        ratio = float(graph.quant(x).scale) / 256 / float(graph.quant(y).scale)
        sink.emit("MUL", [x, gate], [y], version=3 if ratio >= 1 else 2, clamp=NO_CLAMP)
