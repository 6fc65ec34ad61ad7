"""Sigmoid linear unit, also called Swish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import NO_CLAMP, OnnxSink, OnnxSource, TfliteSink, TorchTensor, attrs_of, register, requantize
from edgeq.ops.tflite_forms import table_lookup
from edgeq.ops.unary import Unary, sigmoid, unary_table


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

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        return x * (x * attrs_of(node, SiluAttrs).alpha).sigmoid()

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
        """LOGISTIC and MUL where the gate's rounding to 1/256 moves no result by more than a step, else the table."""
        x, y = node.inputs[0], node.outputs[0]
        quant, out = graph.quant(x), graph.quant(y)
        gate = QuantParams.per_tensor(1 / 256, -128)
        table = self.table(node, graph)
        ratio = np.float32(quant.scale) * np.float32(gate.scale) / np.float32(out.scale)
        product = (np.arange(-128, 128) - quant.zero_point) * (unary_table(sigmoid, quant, gate).astype(np.int32) + 128)
        gated = requantize(product, ratio, int(out.zero_point), out.qmin, out.qmax)
        off = np.abs(gated.astype(np.int32) - table).max()
        if attrs_of(node, SiluAttrs).alpha != 1.0 or off > 1:
            table_lookup(sink, node, table)
            return
        factor = sink.activation(f"{y}.gate", graph.tensor(y).shape, gate)
        sink.emit("LOGISTIC", [x], [factor], version=2)
        sink.emit("MUL", [x, factor], [y], version=3 if ratio >= 1 else 2, clamp=NO_CLAMP)
