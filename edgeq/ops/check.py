"""Checks a graph against its operators: shapes, types and quantization."""

from __future__ import annotations

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node, validate
from edgeq.ops.base import QuantRule, get


def check_graph(graph: Graph) -> None:
    """Raises GraphError at the first node that breaks a rule of its operator.

    A graph is quantized as soon as one tensor has quantization parameters; then every activation must be int8 with
    per-tensor parameters, except the float32 output of a FLOAT operator, which nobody may read.
    """
    validate(graph)
    quantized = any(tensor.quant is not None for tensor in graph.tensors.values())
    for name in graph.inputs:
        _check_activation(graph, name, quantized, "graph input")
    floats: set[str] = set()
    for node in graph.nodes:
        operator = get(node.op)
        if not isinstance(node.attrs, operator.attrs_type):
            raise GraphError(
                f"{node.name}: {node.op} needs {operator.attrs_type.__name__}, got {type(node.attrs).__name__}"
            )
        _check_outputs(node, graph)
        if not quantized:
            continue
        for name in node.inputs:
            if name in floats:
                raise GraphError(f"{node.name}: {name!r} is float32 in a quantized graph; it can only be an output")
        is_float = operator.quant_rule is QuantRule.FLOAT
        for name in node.outputs:
            _check_activation(graph, name, not is_float, node.name)
        if is_float:
            floats.update(node.outputs)
            graph.quant(node.inputs[0])
        else:
            operator.check_quant(node, graph)


def _check_outputs(node: Node, graph: Graph) -> None:
    inferred = get(node.op).infer(node, graph)
    if len(inferred) != len(node.outputs):
        raise GraphError(f"{node.name}: {node.op} has {len(inferred)} outputs, the node names {len(node.outputs)}")
    for name, (shape, _) in zip(node.outputs, inferred, strict=False):
        if graph.tensor(name).shape != shape:
            raise GraphError(
                f"{node.name}: {name!r} is declared {list(graph.tensor(name).shape)}, {node.op} makes {list(shape)}"
            )


def _check_activation(graph: Graph, name: str, quantized: bool, where: str) -> None:
    tensor = graph.tensor(name)
    if quantized:
        quant = graph.quant(name)
        if tensor.dtype != "int8" or quant.axis is not None or quant.bits not in (4, 8):
            raise GraphError(f"{where}: {name!r} must be int8 with 4- or 8-bit per-tensor quantization")
        if not quant.qmin <= int(quant.zero_point) <= quant.qmax:
            raise GraphError(f"{where}: the zero point {int(quant.zero_point)} of {name!r} is not one of its codes")
    elif tensor.dtype != "float32" or tensor.quant is not None:
        raise GraphError(f"{where}: {name!r} must be float32 without quantization")
