"""Multiplication with broadcasting (squeeze-and-excite, scaling by constants); division by a constant becomes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSource, attrs_of, clamp_codes, operand, register, requantize
from edgeq.ops.elementwise import Elementwise, ElementwiseAttrs


@register
class Mul(Elementwise):
    """y = clamp(a * b)."""

    name = "mul"
    onnx_types = ("Mul", "Div")
    onnx_op = "Mul"

    def function(self, a: Array, b: Array) -> Array:
        return a * b

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        a, b, y = graph.quant(node.inputs[0]), graph.quant(node.inputs[1]), graph.quant(node.outputs[0])
        product = (operand(values, 0).astype(np.int32) - a.zero_point) * (
            operand(values, 1).astype(np.int32) - b.zero_point
        )
        multiplier = (np.float32(a.scale) * np.float32(b.scale)) / np.float32(y.scale)
        codes = clamp_codes(attrs_of(node, ElementwiseAttrs).clamp, y)
        return [requantize(product, multiplier, int(y.zero_point), *codes)]

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        if node.op_type == "Mul":
            super().from_onnx(source, node)
            return
        divisor = source.require_constant(node, 1, "divisor").astype(np.float64)
        if not np.all(np.isfinite(divisor)) or np.any(divisor == 0):
            raise source.fail(node, "the divisor holds a zero or a value that is not finite")
        rank = len(source.graph.tensor(node.input[0]).shape)
        name = source.name_of(node)
        factor = (1.0 / divisor).astype(np.float32)
        factor = factor.reshape(
            (1,) * max(rank - factor.ndim, 0) + (factor.shape if factor.size > 1 else (1,) * min(factor.ndim, rank))
        )
        inputs = [node.input[0], source.add_constant(f"{name}.constant", factor)]
        source.emit("mul", name, inputs, [node.output[0]], ElementwiseAttrs())

    def tflite_version(self, node: Node, graph: Graph) -> int:
        a, b, y = (float(graph.quant(name).scale) for name in (*node.inputs, node.outputs[0]))
        return 3 if a * b / y >= 1 else 2
