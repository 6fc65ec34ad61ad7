"""Addition with broadcasting, and what it shares with subtraction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import attrs_of, clamp_codes, operand, register, requantize_real
from edgeq.ops.elementwise import Elementwise, ElementwiseAttrs


def scaled_sum(node: Node, values: Sequence[Array | None], graph: Graph, sign: int) -> Array:
    """clamp(rne((a - z_a) * (s_a / s_y) + sign * (b - z_b) * (s_b / s_y)) + z_y): float32, in that order."""
    out = graph.quant(node.outputs[0])
    terms = []
    for i in range(2):
        quant = graph.quant(node.inputs[i])
        ratio = np.float32(quant.scale) / np.float32(out.scale)
        centred = operand(values, i).astype(np.float32) - np.float32(quant.zero_point)
        terms.append(centred * ratio)
    total = terms[0] + terms[1] if sign > 0 else terms[0] - terms[1]
    return requantize_real(total, int(out.zero_point), *clamp_codes(attrs_of(node, ElementwiseAttrs).clamp, out))


@register
class Add(Elementwise):
    """y = clamp(a + b)."""

    name = "add"
    onnx_types = ("Add",)
    onnx_op = "Add"

    def function(self, a: Array, b: Array) -> Array:
        return a + b

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return [scaled_sum(node, values, graph, 1)]
