"""Layers: the nodes with weights, their operands and their channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops import get

X, WEIGHTS, BIAS = 0, 1, 2
"""Positions of a layer's operands."""


@runtime_checkable
class AccumulatingOperator(Protocol):
    """An operator with weights, whose integer statement is requantize(accumulate(...))."""

    name: str

    def accumulate(self, node: Node, values: Sequence[Array | None], graph: Graph) -> Array:
        """The exact accumulators, bias included, with output channels on axis 1 (NCHW) or last (linear)."""
        ...


def is_layer(node: Node) -> bool:
    """Whether a node has weights: a convolution, transposed convolution or linear layer."""
    return isinstance(get(node.op), AccumulatingOperator)


def bias_name(node: Node) -> str:
    """Returns the name of a layer's bias, "" when it has none."""
    return node.inputs[BIAS] if len(node.inputs) > BIAS else ""
