"""Subtraction with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.add import scaled_sum
from edgeq.ops.base import register
from edgeq.ops.elementwise import Elementwise


@register
class Sub(Elementwise):
    """y = clamp(a - b)."""

    name = "sub"
    onnx_types = ("Sub",)
    onnx_op = "Sub"

    def function(self, a: Array, b: Array) -> Array:
        return a - b

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return [scaled_sum(node, values, graph, -1)]

    def tflite_version(self, node: Node, graph: Graph) -> int:
        shapes = [graph.tensor(name).shape for name in node.inputs]
        return 3 if shapes[0] != shapes[1] and max(len(shape) for shape in shapes) > 4 else 2
