"""Finds activation functions that an exporter wrote as several elementwise nodes.

A cone of elementwise nodes between one activation and one result is a function of one number. It is evaluated on a
grid and compared with the functions that edgeq knows, so every way of writing SiLU, hard-swish, GELU, Mish or softplus
is found, and nothing else.
"""

from __future__ import annotations

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import attrs_of
from edgeq.ops.elementwise import Elementwise, ElementwiseAttrs
from edgeq.ops.gelu import GeluAttrs
from edgeq.ops.hard_sigmoid import HardSigmoidAttrs
from edgeq.ops.silu import SiluAttrs
from edgeq.ops.softplus import SoftplusAttrs
from edgeq.ops.unary import Unary

KNOWN: tuple[tuple[str, Attrs], ...] = (
    ("hard_sigmoid", HardSigmoidAttrs()),
    ("hard_swish", Attrs()),
    ("silu", SiluAttrs()),
    ("gelu", GeluAttrs()),
    ("gelu", GeluAttrs(tanh=True)),
    ("mish", Attrs()),
)
GRID = np.linspace(-12.0, 12.0, 4801)
TOLERANCE = 4e-6
"""On the grid: float32 constants such as 1 / 6 are off by 3e-8, times x^2; the two forms of GELU differ by 5e-4."""
LARGEST_CONE = 16


def recognise_activations(graph: Graph) -> Graph:
    """Returns the graph with each recognised cone replaced by one node; its result keeps its name."""
    producers = {out: (index, node) for index, node in enumerate(graph.nodes) for out in node.outputs}
    replaced: dict[str, Node] = {}
    for root in reversed(graph.nodes):
        found = _recognised(root, graph, producers)
        if found is not None:
            replaced[root.name] = found
    result = graph.copy()
    result.nodes = [replaced.get(node.name, node) for node in graph.nodes]
    return result.prune()


def _recognised(root: Node, graph: Graph, producers: dict[str, tuple[int, Node]]) -> Node | None:
    if not _is_pointwise(root, graph):
        return None
    cone = {producers[root.outputs[0]][0]: root}
    frontier = _activations(root, graph)
    while len(cone) <= LARGEST_CONE:
        if len(frontier) == 1 and len(cone) > 1:
            source = next(iter(frontier))
            match = _match([cone[index] for index in sorted(cone)], source, graph)
            if match is not None and graph.tensor(source).shape == graph.tensor(root.outputs[0]).shape:
                return Node(match[0], root.name, (source,), root.outputs, match[1])
        latest = max(frontier, key=lambda name: producers[name][0] if name in producers else -1)
        if latest not in producers or not _is_pointwise(producers[latest][1], graph):
            return None
        index, node = producers[latest]
        cone[index] = node
        frontier = (frontier - {latest}) | _activations(node, graph)
    return None


def _activations(node: Node, graph: Graph) -> set[str]:
    return {name for name in node.inputs if not graph.tensor(name).is_constant}


def _is_pointwise(node: Node, graph: Graph) -> bool:
    operator = get(node.op)
    if isinstance(operator, Unary):
        return len(node.inputs) == 1
    if not isinstance(operator, Elementwise):
        return False
    constants = [graph.constant(name) for name in node.inputs]
    return all(value is None or value.size == 1 for value in constants)


def _match(cone: list[Node], source: str, graph: Graph) -> tuple[str, Attrs] | None:
    values: dict[str, Array] = {source: GRID}
    with np.errstate(all="ignore"):
        for node in cone:
            values[node.outputs[0]] = _evaluate(node, values, graph)
        result = values[cone[-1].outputs[0]]
        for op, attrs in (*KNOWN, *_scaled(cone, graph)):
            operator = get(op)
            if not isinstance(operator, Unary):
                raise GraphError(f"{op} is not a function of one input")
            expected = operator.function(GRID, Node(op, "", (source,), ("",), attrs))
            if np.all(np.abs(result - expected) <= TOLERANCE):
                return op, attrs
    return None


def _scaled(cone: list[Node], graph: Graph) -> list[tuple[str, Attrs]]:
    """Softplus scaled by a constant of a cone that holds a softplus."""
    if all(node.op != "softplus" for node in cone):
        return []
    constants = [graph.constant(name) for node in cone for name in node.inputs]
    factors = {float(value.reshape(())) for value in constants if value is not None}
    return [("softplus", SoftplusAttrs(beta)) for beta in sorted(factors) if beta]


def _evaluate(node: Node, values: dict[str, Array], graph: Graph) -> Array:
    operator = get(node.op)
    if isinstance(operator, Unary):
        return operator.function(values[node.inputs[0]], node)
    if not isinstance(operator, Elementwise):
        raise GraphError(f"{node.name}: {node.op} is not elementwise")
    operands = []
    for name in node.inputs:
        constant = graph.constant(name)
        operands.append(values[name] if constant is None else constant.reshape(()).astype(np.float64))
    clipped: Array = np.clip(operator.function(*operands), *attrs_of(node, ElementwiseAttrs).clamp)
    return clipped
