"""Turns the one-input functions of a quantized graph into tables, as a .edgeq file holds them."""

from __future__ import annotations

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node, Tensor
from edgeq.ops import get
from edgeq.ops.softmax import softmax_table
from edgeq.ops.unary import Unary


def lower(graph: Graph) -> Graph:
    """Returns a quantized graph in which every one-input function is a `lut` with its table as a constant.

    Softmax gets the table of its exponentials as a second input, so that no device computes an exponential. Works in
    either layout and changes no code: a table holds what the function's integer statement computes. Node and
    tensor names stay.

    Raises:
        GraphError: If the graph is float.
    """
    result = graph.copy()
    result.nodes = []
    for node in graph.nodes:
        operator = get(node.op)
        if isinstance(operator, Unary):
            node = _table_node(graph, result, node, operator)
        elif node.op == "softmax" and len(node.inputs) == 1:
            table = softmax_table(float(graph.quant(node.inputs[0]).scale))
            constant = result.add_tensor(Tensor.constant(result.fresh_name(f"{node.name}.table"), table))
            node = node.with_(inputs=(node.inputs[0], constant))
        result.nodes.append(node)
    return result.prune()


def _table_node(graph: Graph, result: Graph, node: Node, operator: Unary) -> Node:
    if any(graph.tensor(name).quant is None for name in (node.inputs[0], node.outputs[0])):
        raise GraphError(f"{node.name}: lowering {node.op} to a table needs a quantized graph; quantize it first")
    table = result.add_tensor(Tensor.constant(result.fresh_name(f"{node.name}.table"), operator.table(node, graph)))
    return Node("lut", node.name, (node.inputs[0], table), node.outputs, Attrs())
