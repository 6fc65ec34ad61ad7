"""Checks that hold for every graph, whatever its operators mean."""

from __future__ import annotations

from edgeq.errors import GraphError
from edgeq.ir.graph import Graph


def validate(graph: Graph) -> None:
    """Raises GraphError at the first broken rule: names, order, single definition, ends.

    The operators' own rules (shapes, types, quantization) are checked by `edgeq.ops.check_graph`.
    """
    defined = {name for name, tensor in graph.tensors.items() if tensor.is_constant}
    for name in graph.inputs:
        if graph.tensor(name).is_constant:
            raise GraphError(f"graph input {name!r} is a constant")
        defined.add(name)
    names: set[str] = set()
    for node in graph.nodes:
        if node.name in names:
            raise GraphError(f"two nodes are named {node.name!r}")
        names.add(node.name)
        for name in node.inputs:
            if name and name not in defined:
                raise GraphError(f"{node.name}: input {name!r} is not defined before it is used")
        for name in node.outputs:
            graph.tensor(name)
            if name in defined:
                raise GraphError(f"{node.name}: tensor {name!r} is defined twice")
            defined.add(name)
    if not graph.inputs or not graph.outputs:
        raise GraphError(f"graph {graph.name} needs at least one input and one output")
    for name in graph.outputs:
        if name not in defined:
            raise GraphError(f"graph output {name!r} is not defined")
