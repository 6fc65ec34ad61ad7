"""Activations that exporters write with operators that edgeq has not: comparisons, and division by an activation.

torch writes nn.Softplus as Where(beta * x > threshold, x, Softplus(beta * x) / beta) and nn.Softsign as
x / (|x| + 1). Each becomes one node here. What is written with operators that edgeq has is found in the graph instead,
by `edgeq.passes.recognise_activations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Number = Callable[[str], float | None]
"""The value of a constant of one element by its name, else None."""


def join_activations(nodes: list[Any], outputs: Iterable[str], number: Number) -> list[Any]:
    """Returns the nodes with each such activation as one node, without the parts that nothing else reads.

    Args:
        nodes: onnx.NodeProto in an order in which every input is defined before it is used.
        outputs: The model's outputs.
        number: Looks up constants.
    """
    makers = {out: node for node in nodes for out in node.output if node.domain in ("", "ai.onnx")}
    joined = [_joined(node, makers, number) or node for node in nodes]
    if all(after is before for after, before in zip(joined, nodes, strict=True)):
        return nodes
    needed, kept = set(outputs), []
    for node in reversed(joined):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def _joined(node: Any, makers: Mapping[str, Any], number: Number) -> Any:
    """The one node that an activation whose last part is this one becomes, if it is one."""
    if node.domain not in ("", "ai.onnx"):
        return None
    return _softplus(node, makers, number) or _softsign(node, makers, number)


def _made(name: str, op_type: str, makers: Mapping[str, Any], inputs: int) -> Any:
    """The node that makes a value, if it is of that type and has that many inputs."""
    node = makers.get(name)
    return node if node is not None and node.op_type == op_type and len(node.input) == inputs else None


def _softplus(where: Any, makers: Mapping[str, Any], number: Number) -> Any:
    import onnx

    if where.op_type != "Where" or len(where.input) != 3:
        return None
    condition, x, soft = where.input
    greater = _made(condition, "Greater", makers, 2)
    if greater is None:
        return None
    scaled, threshold, beta = greater.input[0], number(greater.input[1]), 1.0
    if scaled != x:
        scale, unscale = _made(scaled, "Mul", makers, 2), _made(soft, "Div", makers, 2)
        if scale is None or unscale is None or scale.input[0] != x:
            return None
        factor, soft = number(scale.input[1]), unscale.input[0]
        if factor is None or number(unscale.input[1]) != factor:
            return None
        beta = factor
    smooth = _made(soft, "Softplus", makers, 1)
    if smooth is None or smooth.input[0] != scaled or threshold is None:
        return None
    return onnx.helper.make_node("Softplus", [x], where.output, where.name, beta=beta, threshold=threshold)


def _softsign(divide: Any, makers: Mapping[str, Any], number: Number) -> Any:
    import onnx

    if divide.op_type != "Div" or len(divide.input) != 2:
        return None
    x, below = divide.input
    total = _made(below, "Add", makers, 2)
    if total is None:
        return None
    for size, one in (total.input, total.input[::-1]):
        magnitude = _made(size, "Abs", makers, 1)
        if magnitude is not None and magnitude.input[0] == x and number(one) == 1.0:
            return onnx.helper.make_node("Softsign", [x], divide.output, divide.name)
    return None
