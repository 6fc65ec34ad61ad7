"""Runs nodes of a float NCHW graph in torch, over tensors by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node
from edgeq.ops import get
from edgeq.ops.base import TorchTensor

Hook = Callable[[Node, list[TorchTensor]], list[TorchTensor]]
"""Called with a node and its outputs; returns what takes their place."""


def constant_tensors(graph: Graph, names: Iterable[str] | None = None) -> dict[str, TorchTensor]:
    """Returns the graph's constants as torch tensors on the CPU, copied, so that training cannot reach the graph.

    Args:
        graph: Any graph.
        names: Some of its constants; all of them without it.
    """
    import torch

    wanted = graph.tensors if names is None else names
    found = {name: graph.constant(name) for name in wanted}
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items() if value is not None}


def run_nodes(
    nodes: Sequence[Node],
    values: dict[str, TorchTensor],
    graph: Graph,
    constants: Mapping[str, TorchTensor] | None = None,
    hook: Hook | None = None,
    keep: Collection[str] | None = None,
) -> None:
    """Runs some nodes of a graph in order and adds what they compute to `values`.

    Args:
        nodes: In an order in which every input is defined before it is used.
        values: Activations by name, shape [N, ...]: must hold what the nodes read and do not compute. A name that is
            both here and a constant of the graph means the one here.
        graph: Float and NCHW: says what the nodes' tensors are.
        constants: Tensors instead of the graph's constants (parameters, or `constant_tensors` made once); a constant
            that is not here is taken from the graph, anew in every call.
        hook: Called after each node, where fake quantization is put.
        keep: Names that stay in `values`; everything else leaves when the last of `nodes` has read it. Without it
            everything stays.

    Raises:
        GraphError: If the graph is not NCHW, a node reads a tensor that nothing gives, or an operator has no float
            statement.
    """
    if graph.layout != "nchw":
        raise GraphError(f"graph {graph.name} is {graph.layout}; torch runs NCHW graphs, before channels_last")
    released = {} if keep is None else _released(nodes, keep)
    for index, node in enumerate(nodes):
        operands = [_operand(name, node, values, graph, constants) for name in node.inputs]
        outputs = get(node.op).run_torch(node, operands, graph)
        if hook is not None:
            outputs = hook(node, outputs)
        values.update(zip(node.outputs, outputs, strict=True))
        for name in released.get(index, ()):
            values.pop(name, None)


def run_graph(
    graph: Graph,
    inputs: Mapping[str, TorchTensor],
    constants: Mapping[str, TorchTensor] | None = None,
    hook: Hook | None = None,
    wanted: Sequence[str] | None = None,
) -> list[TorchTensor]:
    """Runs a whole float NCHW graph and returns its outputs, or the `wanted` tensors; the rest is freed on the way.

    Args:
        graph: Float and NCHW.
        inputs: The graph's inputs by name.
        constants: As for `run_nodes`.
        hook: As for `run_nodes`.
        wanted: Tensors to return instead of the graph's outputs.

    Raises:
        GraphError: As for `run_nodes`; if the graph computes no tensor of a wanted name.
    """
    names = list(graph.outputs if wanted is None else wanted)
    values = dict(inputs)
    run_nodes(graph.nodes, values, graph, constants, hook, names)
    missing = [name for name in names if name not in values]
    if missing:
        raise GraphError(f"graph {graph.name} computes no tensor named {missing[0]!r}")
    return [values[name] for name in names]


def _operand(
    name: str,
    node: Node,
    values: Mapping[str, TorchTensor],
    graph: Graph,
    constants: Mapping[str, TorchTensor] | None,
) -> TorchTensor | None:
    if not name:
        return None
    if name in values:
        return values[name]
    if constants is not None and name in constants:
        return constants[name]
    if graph.constant(name) is None:
        raise GraphError(f"{node.name}: it reads {name!r}, which was neither given nor computed")
    return constant_tensors(graph, [name])[name]


def _released(nodes: Sequence[Node], keep: Collection[str]) -> dict[int, list[str]]:
    """Maps the position of a node to the tensors that nothing after it needs."""
    last_use = {name: index for index, node in enumerate(nodes) for name in (*node.outputs, *node.inputs)}
    released: dict[int, list[str]] = {}
    for name, index in last_use.items():
        if name not in keep:
            released.setdefault(index, []).append(name)
    return released
