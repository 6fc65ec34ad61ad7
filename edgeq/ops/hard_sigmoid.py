"""Piecewise linear sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, QuantRule, attrs_of, register
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
        return np.clip(x * x.dtype.type(attrs.alpha) + x.dtype.type(attrs.beta), 0, 1)

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
