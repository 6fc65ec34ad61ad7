"""Turns additions and multiplications by constants into `batch_norm`, which `fold_batchnorm` then folds."""

from __future__ import annotations

import numpy as np

from edgeq.ir import Attrs, Graph, Node, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import NO_CLAMP, attrs_of, channel_axis
from edgeq.ops.elementwise import Elementwise, ElementwiseAttrs


def fold_affine(graph: Graph) -> Graph:
    """Returns the NCHW graph with add, sub and mul by a constant, one value or one a channel, as `batch_norm`."""
    result = graph.copy()
    result.nodes = [_affine(node, graph, result) or node for node in graph.nodes]
    return result.prune()


def _affine(node: Node, graph: Graph, result: Graph) -> Node | None:
    if not isinstance(get(node.op), Elementwise) or attrs_of(node, ElementwiseAttrs).clamp != NO_CLAMP:
        return None
    a, b = (graph.constant(name) for name in node.inputs)
    constant = b if a is None else a
    x = node.inputs[0 if a is None else 1]
    if constant is None or graph.tensor(x).shape != graph.tensor(node.outputs[0]).shape:
        return None
    vector = _per_channel(constant, graph.tensor(x).shape, graph)
    if vector is None:
        return None
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    scale, shift = {
        "add": (one, vector),
        "mul": (vector, zero),
        "sub": (one, -vector) if a is None else (-one, vector),
    }[node.op]
    names = [
        result.add_tensor(Tensor.constant(result.fresh_name(f"{node.name}.{stem}"), value))
        for stem, value in (("scale", scale), ("shift", shift))
    ]
    return Node("batch_norm", node.name, (x, *names), node.outputs, Attrs())


def _per_channel(constant: Array, shape: tuple[int, ...], graph: Graph) -> Array | None:
    """The constant as a float32 vector over the channels, or None where it varies along another axis."""
    if len(shape) < 2:
        return None
    axis = channel_axis(len(shape), graph.layout)
    channels = shape[axis]
    if constant.size == 1:
        return np.full(channels, constant.reshape(-1)[0], np.float32)
    if constant.ndim == len(shape) and constant.shape[axis] == constant.size == channels:
        return constant.reshape(-1).astype(np.float32)
    return None
