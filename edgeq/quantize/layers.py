"""Layers: the nodes with weights, and their operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from edgeq.errors import QuantizationError
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops import get

X, WEIGHTS, BIAS = 0, 1, 2
"""Positions of a layer's operands."""


@runtime_checkable
class Layer(Protocol):
    """An operator with weights; its integer statement is finish(accumulate(...)).

    Output channels are axis 0 of the weights, and axis 1 of a convolution's accumulators (NCHW) or the last axis of a
    linear layer's.
    """

    def accumulate(self, node: Node, values: Sequence[Array | None], graph: Graph) -> Array:
        """Returns the exact accumulators, bias included."""
        ...

    def finish(self, node: Node, acc: Array, graph: Graph) -> Array:
        """Returns the output codes of accumulators."""
        ...


def is_layer(node: Node) -> bool:
    """Whether a node has weights: a convolution, transposed convolution or linear layer."""
    return isinstance(get(node.op), Layer)


def layer_operator(node: Node) -> Layer:
    """Returns the operator of a layer; raises QuantizationError for another node."""
    operator = get(node.op)
    if not isinstance(operator, Layer):
        raise QuantizationError(f"{node.name}: {node.op} has no weights")
    return operator


def bias_name(node: Node) -> str:
    """Returns the name of a layer's bias, "" when it has none."""
    return node.inputs[BIAS] if len(node.inputs) > BIAS else ""


def channel_axis_of_acc(rank: int) -> int:
    """Where the output channels of accumulators are: axis 1 of a convolution's, the last of a linear layer's."""
    return 1 if rank == 4 else rank - 1
