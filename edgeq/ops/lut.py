"""A table of output codes, one for each input code: what every one-input function becomes in a .edgeq file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import Operator, Shape, TfliteSink, TorchTensor, channel_axis, operand, register
from edgeq.ops.tflite_forms import table_lookup
from edgeq.ops.unary import apply_table


@register
class Lut(Operator):
    """y = table[q + 128], or table[c][q + 128]. Inputs: x, table: an int8 constant [256] or [channels, 256]."""

    name = "lut"

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        shape, table = graph.tensor(node.inputs[0]).shape, graph.constant(node.inputs[1])
        if table is None or table.dtype != np.int8:
            raise GraphError(f"{node.name}: the table of a lut must be an int8 constant")
        if table.shape != (256,) and table.shape != (shape[channel_axis(len(shape), graph.layout)], 256):
            raise GraphError(f"{node.name}: table {list(table.shape)} must be [256] or [channels, 256]")
        return [(shape, "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        raise GraphError(f"{node.name}: a lut maps codes; it has no float meaning")

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        raise GraphError(f"{node.name}: a lut maps codes; it has no float meaning")

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        x = operand(values, 0)
        return [apply_table(x, operand(values, 1), channel_axis(x.ndim, graph.layout))]

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        table = graph.constant(node.inputs[1])
        assert table is not None
        table_lookup(sink, node, table)
