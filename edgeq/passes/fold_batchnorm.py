"""Folds batch normalisation into the weights around it (Jacob et al. 2018, arXiv 1712.05877, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops.base import NO_CLAMP, Window
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.passes.editing import NodeList

WEIGHTED = (ConvAttrs, ConvTransposeAttrs, LinearAttrs)


def fold_batchnorm(graph: Graph) -> Graph:
    """Returns the NCHW graph without `batch_norm`.

    Each one folds, in this order of preference: into the weighted operator (or batch_norm) before it, when nothing
    else reads that one's output; into all convolutions and linear layers that read it, when padding does not come
    between; or it becomes a depthwise 1x1 convolution (for other ranks than 4: a multiplication and an addition).
    """
    return _replace_rest(_fold_forward(_fold_back(graph)))


@dataclass(frozen=True, slots=True)
class _Map:
    """y = x * scale + shift a channel, in float64."""

    scale: Array
    shift: Array


def _map_of(node: Node, graph: Graph) -> _Map:
    scale, shift = (_constant(graph, name) for name in node.inputs[1:])
    return _Map(scale, shift)


def _constant(graph: Graph, name: str) -> Array:
    value = graph.constant(name)
    if value is None:
        raise GraphError(f"tensor {name!r} must be constant")
    return value.astype(np.float64)


def _store(graph: Graph, stem: str, value: Array) -> str:
    return graph.add_tensor(Tensor.constant(graph.fresh_name(stem), value.astype(np.float32)))


def _bias(node: Node, graph: Graph, outputs: int) -> Array:
    has_bias = len(node.inputs) > 2 and node.inputs[2]
    return _constant(graph, node.inputs[2]) if has_bias else np.zeros(outputs)


def _fold_back(graph: Graph) -> Graph:
    edit = NodeList.of(graph)
    for node in graph.nodes:
        before = edit.sole_producer(node.inputs[0]) if node.op == "batch_norm" else None
        folded = None if before is None else _after(before, node, edit.graph)
        if before is None or folded is None:
            edit.append(node)
        else:
            edit.replace(before, folded)
    return edit.finish()


def _after(before: Node, norm: Node, graph: Graph) -> Node | None:
    """`before` with the normalisation that follows it taken in, or None."""
    this = _map_of(norm, graph)
    if before.op == "batch_norm":
        first = _map_of(before, graph)
        scale = _store(graph, f"{norm.name}.scale", first.scale * this.scale)
        shift = _store(graph, f"{norm.name}.shift", first.shift * this.scale + this.shift)
        return norm.with_(inputs=(before.inputs[0], scale, shift))
    if not isinstance(before.attrs, WEIGHTED) or before.attrs.clamp != NO_CLAMP:
        return None
    # The channels of a linear layer's output are its last axis, those of a normalisation axis 1.
    if before.op == "linear" and len(graph.tensor(norm.outputs[0]).shape) != 2:
        return None
    weights = _constant(graph, before.inputs[1])
    scaled = weights * this.scale.reshape((-1,) + (1,) * (weights.ndim - 1))
    bias = _bias(before, graph, weights.shape[0]) * this.scale + this.shift
    inputs = (
        before.inputs[0],
        _store(graph, f"{before.name}.weight", scaled),
        _store(graph, f"{before.name}.bias", bias),
    )
    return before.with_(inputs=inputs, outputs=norm.outputs)


def _fold_forward(graph: Graph) -> Graph:
    result = graph.copy()
    folded: dict[str, Node] = {}
    consumers = graph.consumers()
    for norm in graph.nodes:
        if norm.op != "batch_norm" or norm.outputs[0] in graph.outputs:
            continue
        this, readers = _map_of(norm, graph), consumers.get(norm.outputs[0], [])
        if all(_takes(reader, norm, this, graph) for reader in readers):
            for reader in readers:
                folded[reader.name] = _before(reader, norm, this, result)
    result.nodes = [folded.get(node.name, node) for node in graph.nodes]
    return result.prune()


def _takes(reader: Node, norm: Node, this: _Map, graph: Graph) -> bool:
    if reader.inputs[0] != norm.outputs[0]:
        return False
    match reader.attrs:
        case ConvAttrs(window):
            # A border of zeros would become a border of shifts.
            return not any(window.pads) or not np.any(this.shift)
        case LinearAttrs():
            return len(graph.tensor(norm.outputs[0]).shape) == 2
    return False


def _before(reader: Node, norm: Node, this: _Map, graph: Graph) -> Node:
    """`reader` with the normalisation that it reads taken in."""
    weights = _constant(graph, reader.inputs[1])
    groups = reader.attrs.groups if isinstance(reader.attrs, ConvAttrs) else 1
    outputs = weights.shape[0]
    # [groups, outputs / groups, inputs / groups, taps] against [groups, 1, inputs / groups, 1].
    split = weights.reshape(groups, outputs // groups, weights.shape[1], -1)
    scale, shift = (value.reshape(groups, 1, -1, 1) for value in (this.scale, this.shift))
    bias = _bias(reader, graph, outputs) + (split * shift).sum(axis=(2, 3)).reshape(-1)
    inputs = (
        norm.inputs[0],
        _store(graph, f"{reader.name}.weight", (split * scale).reshape(weights.shape)),
        _store(graph, f"{reader.name}.bias", bias),
    )
    return reader.with_(inputs=inputs)


def _replace_rest(graph: Graph) -> Graph:
    result = graph.copy()
    result.nodes = []
    for node in graph.nodes:
        if node.op != "batch_norm":
            result.nodes.append(node)
            continue
        this, rank = _map_of(node, graph), len(graph.tensor(node.outputs[0]).shape)
        if rank == 4:
            weights = _store(result, f"{node.name}.weight", this.scale.reshape(-1, 1, 1, 1))
            bias = _store(result, f"{node.name}.bias", this.shift)
            attrs = ConvAttrs(Window((1, 1)), groups=this.scale.size)
            result.nodes.append(Node("conv", node.name, (node.inputs[0], weights, bias), node.outputs, attrs))
        else:
            result.nodes.extend(_as_arithmetic(node, this, rank, result))
    return result.prune()


def _as_arithmetic(node: Node, this: _Map, rank: int, graph: Graph) -> list[Node]:
    form = [-1 if axis == 1 else 1 for axis in range(rank)]
    steps = [("mul", this.scale, 1.0), ("add", this.shift, 0.0)]
    needed = [(op, value) for op, value, neutral in steps if np.any(value != neutral)] or [
        ("mul", this.scale)
    ]
    nodes: list[Node] = []
    source = node.inputs[0]
    for i, (op, value) in enumerate(needed):
        last = i == len(needed) - 1
        out = node.outputs[0] if last else graph.fresh_name(f"{node.outputs[0]}.scaled")
        if not last:
            graph.add_tensor(graph.tensor(node.outputs[0]).with_(name=out))
        # One number stays one number: it quantizes without error.
        value = value[:1] if np.all(value == value[0]) else value
        shaped = value.reshape([1] * rank if value.size == 1 else form)
        constant = _store(graph, f"{node.name}.{op}", shaped)
        name = node.name if last else graph.fresh_name(f"{node.name}.{op}")
        nodes.append(Node(op, name, (source, constant), (out,), ElementwiseAttrs()))
        source = out
    return nodes
