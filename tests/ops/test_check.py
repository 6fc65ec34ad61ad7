"""What `check_graph` refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from quantized_graphs import QuantizedBuilder
from small_graphs import inverted_residual

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ops import all_operators, check_graph, get
from edgeq.ops.base import Operator, register
from edgeq.ops.softmax import SoftmaxAttrs


def graph_of(seed: int = 0) -> Graph:
    """conv, max_pool, add with a constant, linear, softmax."""
    b = QuantizedBuilder(np.random.default_rng(seed), "w8a8")
    y = b.max_pool(b.conv(b.input(3, 6, 6), 4, (3, 3)), (2, 2), (2, 2))
    y = b.linear(b.mean(b.binary("add", y, b.constant(1, 4, 1, 1)), keep=False), 5)
    return b.finish(b.node("softmax", [y], SoftmaxAttrs(1)))


def changed(graph: Graph, name: str, **changes: object) -> None:
    graph.add_tensor(graph.tensor(name).with_(**changes))


def node_of(graph: Graph, op: str) -> Node:
    return next(node for node in graph.nodes if node.op == op)


def quant(scale: float, zero: int = 0, bits: int = 8) -> QuantParams:
    return QuantParams.per_tensor(scale, zero, bits)


BREAKS: dict[str, Callable[[Graph], None]] = {
    "declared": lambda g: changed(g, node_of(g, "linear").outputs[0], shape=(-1, 6)),
    "same quantization": lambda g: changed(g, node_of(g, "max_pool").outputs[0], quant=quant(0.77)),
    "not quantized": lambda g: changed(g, node_of(g, "mean").outputs[0], quant=None),
    "must be int8": lambda g: changed(g, node_of(g, "mean").outputs[0], dtype="int32"),
    "not one of its codes": lambda g: changed(g, node_of(g, "mean").outputs[0], quant=quant(0.1, 200)),
    "must be float32": lambda g: changed(g, node_of(g, "softmax").outputs[0], dtype="int8", quant=quant(0.1)),
    "scale of a bias": lambda g: changed(g, g.inputs[0], quant=quant(0.123)),
    "must lie in": lambda g: changed(
        g, node_of(g, "linear").inputs[1], data=np.full(g.tensor(node_of(g, "linear").inputs[1]).shape, -128, np.int8)
    ),
    "must be an int32 constant": lambda g: changed(g, node_of(g, "conv").inputs[2], quant=quant(0.1, 0, 8)),
    "operand": lambda g: changed(
        g,
        node_of(g, "add").inputs[1],
        quant=QuantParams(np.ones(4, np.float32), np.zeros(4, np.int32), 8, 1),
    ),
    "needs LinearAttrs": lambda g: g.nodes.__setitem__(
        [n.op for n in g.nodes].index("linear"), node_of(g, "linear").with_(attrs=Attrs())
    ),
    "no operator": lambda g: g.nodes.__setitem__(0, g.nodes[0].with_(op="convolution")),
}


@pytest.mark.parametrize("message", BREAKS)
def test_broken_rules_are_named(message: str) -> None:
    graph = graph_of()
    check_graph(graph)
    BREAKS[message](graph)
    with pytest.raises(GraphError, match=message):
        check_graph(graph)


def test_float_output_is_an_end() -> None:
    graph = graph_of()
    y = graph.outputs[0]
    graph.nodes.append(Node("relu", "late", (y,), ("late.out",)))
    graph.add_tensor(Tensor("late.out", graph.tensor(y).shape, "int8", quant(0.1)))
    graph.outputs = ["late.out"]
    with pytest.raises(GraphError, match="can only be an output"):
        check_graph(graph)


def test_float_graph_passes_and_batch_norm_cannot_be_quantized() -> None:
    graph = inverted_residual()
    check_graph(graph)
    with pytest.raises(GraphError, match="float_pipeline"):
        get("batch_norm").run_integer(Node("batch_norm", "n", ("x",), ("y",)), [], graph)
    with pytest.raises(GraphError, match="no float meaning"):
        get("lut").run_float(Node("lut", "n", ("x",), ("y",)), [], graph)


def test_names_are_unique_and_every_operator_is_documented() -> None:
    with pytest.raises(GraphError, match="registered twice"):
        register(type("Again", (type(get("relu")),), {}))
    for operator in all_operators():
        assert isinstance(operator, Operator)
        assert operator.__doc__
        assert operator.fixed_range(Node(operator.name, "n", (), ())) is None or operator.quant_rule.value == "fixed"
