"""Piecewise linear sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import NO_CLAMP, OnnxSink, OnnxSource, QuantRule, TfliteSink, TorchTensor, attrs_of, register
from edgeq.ops.unary import Unary


@dataclass(frozen=True, slots=True)
class HardSigmoidAttrs(Attrs):
    """Attributes of `hard_sigmoid`.

    Attributes:
        alpha: Slope.
        beta: Value at zero.
    """

    alpha: float = 1.0 / 6.0
    beta: float = 0.5


@register
class HardSigmoid(Unary):
    """y = clip(alpha * x + beta, 0, 1)."""

    name = "hard_sigmoid"
    attrs_type = HardSigmoidAttrs
    quant_rule = QuantRule.FIXED
    onnx_types = ("HardSigmoid",)

    def function(self, x: Array, node: Node) -> Array:
        attrs = attrs_of(node, HardSigmoidAttrs)
        return np.asarray(np.clip(x * x.dtype.type(attrs.alpha) + x.dtype.type(attrs.beta), 0, 1))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        attrs = attrs_of(node, HardSigmoidAttrs)
        return (x * attrs.alpha + attrs.beta).clamp(0, 1)

    def fixed_range(self, node: Node) -> tuple[float, float] | None:
        return 0.0, 1.0

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        attrs = HardSigmoidAttrs(
            float(source.attribute(node, "alpha", 0.2)), float(source.attribute(node, "beta", 0.5))
        )
        self.emit_unary(source, node, attrs)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs = attrs_of(node, HardSigmoidAttrs)
        sink.emit(
            "HardSigmoid",
            list(node.inputs),
            list(node.outputs),
            node.name,
            alpha=attrs.alpha,
            beta=attrs.beta,
        )

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """MUL by alpha into codes that saturate as the function does, then ADD of beta: a moved zero point."""
        attrs, quant = attrs_of(node, HardSigmoidAttrs), graph.quant(node.outputs[0])
        if attrs.beta != 0.5 or attrs.alpha <= 0 or not quant.same_as(QuantParams.per_tensor(1 / 256, -128)):
            super().to_tflite(sink, node, graph)
            return
        middle = QuantParams.per_tensor(1 / 256, 0)
        product = sink.activation(f"{node.outputs[0]}.scaled", graph.tensor(node.outputs[0]).shape, middle)
        alpha = sink.constant(
            f"{node.name}.alpha", np.full((1,), 127, np.int8), QuantParams.per_tensor(attrs.alpha / 127, 0)
        )
        half = sink.constant(f"{node.name}.beta", np.full((1,), 64, np.int8), QuantParams.per_tensor(0.5 / 64, 0))
        ratio = float(graph.quant(node.inputs[0]).scale) * attrs.alpha / 127 * 256
        sink.emit("MUL", [node.inputs[0], alpha], [product], version=3 if ratio >= 1 else 2, clamp=NO_CLAMP)
        sink.emit("ADD", [product, half], list(node.outputs), version=2, clamp=NO_CLAMP)
