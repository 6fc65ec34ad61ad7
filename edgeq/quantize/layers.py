"""Layers: the nodes with weights, and their operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from edgeq.errors import QuantizationError
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import NO_CLAMP, Clamp
from edgeq.ops.weighted import finish_channels

X, WEIGHTS, BIAS = 0, 1, 2
"""Positions of a layer's operands."""


@runtime_checkable
class Layer(Protocol):
    """An operator with weights (output channels on axis 0) whose integer statement requantizes accumulators."""

    def accumulate(self, node: Node, values: Sequence[Array | None], graph: Graph) -> Array:
        """Returns the exact accumulators, bias included."""
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


def acc_channel_axis(node: Node, rank: int) -> int:
    """Where the output channels of a layer's accumulators are: the last axis of a linear layer's, else axis 1."""
    return rank - 1 if node.op == "linear" else 1


def finish(node: Node, acc: Array, graph: Graph) -> Array:
    """Returns the output codes of accumulators; `graph` is NCHW."""
    clamp: Clamp = getattr(node.attrs, "clamp", NO_CLAMP)
    return finish_channels(acc, node, graph, clamp, acc_channel_axis(node, acc.ndim))
