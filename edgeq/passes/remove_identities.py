"""Drops nodes that change nothing and merges neighbouring reshapes, transposes, slices, and a mean with its squeeze."""

from __future__ import annotations

import math

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Graph, Node
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import NO_CLAMP, Window, attrs_of, channel_axis, clamp_codes
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.slice import SliceAttrs
from edgeq.ops.transpose import TransposeAttrs
from edgeq.passes.editing import NodeList, with_inputs_renamed

_POINT = Window((1, 1))


def remove_identities(graph: Graph) -> Graph:
    """Returns the graph without nodes whose output equals their input; outputs keep their names.

    A node between a graph input, or another graph output, and a graph output stays: both names are needed.
    """
    merged = _merge(graph)
    edit = NodeList.of(merged)
    names: dict[str, str] = {}
    for node in merged.nodes:
        node = with_inputs_renamed(node, names)
        if not changes_nothing(node, merged):
            edit.append(node)
            continue
        source, out = _activation(node, merged), node.outputs[0]
        if out not in merged.outputs:
            names[out] = source
            continue
        producer = edit.producer(source)
        if producer is None or source in merged.outputs:
            edit.append(node)
            continue
        # The producer takes over the output's name, and whoever read the old one reads the new one.
        edit.replace(producer, producer.with_(outputs=tuple(out if o == source else o for o in producer.outputs)))
        names = {key: out if value == source else value for key, value in names.items()} | {source: out}
        edit.nodes = [with_inputs_renamed(kept, {source: out}) for kept in edit.nodes]
    return edit.finish()


def changes_nothing(node: Node, graph: Graph) -> bool:
    """Whether a node gives its (one activation) input back, in a quantized graph code by code."""
    shape, x = graph.tensor(node.outputs[0]).shape, graph.tensor(_activation(node, graph))
    quant = graph.tensor(node.outputs[0]).quant
    if x.shape != shape or not (x.quant is quant or (quant is not None and quant.same_as(x.quant))):
        return False
    match node.attrs:
        case ReshapeAttrs() | SliceAttrs():
            return True
        case TransposeAttrs(permutation):
            # Moving axes of size 1 moves no element, but a reshape says so more clearly.
            return permutation == tuple(range(len(permutation)))
        case PadAttrs(before, after):
            return not any(before + after)
        case ClipAttrs(low, high):
            if quant is not None:
                return clamp_codes((low, high), quant) == (quant.qmin, quant.qmax)
            return (low, high) == NO_CLAMP
        case ChannelShuffleAttrs(groups):
            return groups in (1, shape[channel_axis(len(shape), graph.layout)])
        case MaxPoolAttrs(window) | AvgPoolAttrs(window):
            return window == _POINT
        case ElementwiseAttrs(clamp):
            return clamp == NO_CLAMP and _neutral(node, graph)
    return (node.op == "concat" and len(node.inputs) == 1) or node.op == "resize"


def _activation(node: Node, graph: Graph) -> str:
    found = [name for name in node.inputs if name and not graph.tensor(name).is_constant]
    if not found:
        raise GraphError(f"{node.name}: {node.op} reads no activation")
    return found[0]


def _neutral(node: Node, graph: Graph) -> bool:
    a, b = (graph.constant(name) for name in node.inputs)
    constant = b if a is None else a
    if constant is None or constant.dtype != np.float32 or (node.op == "sub" and b is None):
        return False
    return bool(np.all(constant == (1 if node.op == "mul" else 0)))


def _merge(graph: Graph) -> Graph:
    edit = NodeList.of(graph)
    for node in graph.nodes:
        before = edit.producer(node.inputs[0]) if node.inputs else None
        if before is not None and before.op == node.op == "reshape":
            node = node.with_(inputs=before.inputs)
        elif before is not None and before.op == node.op == "transpose":
            first, second = (attrs_of(n, TransposeAttrs).permutation for n in (before, node))
            combined = TransposeAttrs(tuple(first[axis] for axis in second))
            node = node.with_(inputs=before.inputs, attrs=combined)
        elif before is not None and before.op == node.op == "slice":
            combined_part = _part_of_part(attrs_of(before, SliceAttrs), attrs_of(node, SliceAttrs))
            node = node.with_(inputs=before.inputs, attrs=combined_part)
        if node.op == "transpose" and _moves_only_ones(node, graph):
            node = node.with_(op="reshape", attrs=ReshapeAttrs(graph.tensor(node.outputs[0]).shape))
        mean = edit.sole_producer(node.inputs[0]) if node.op == "reshape" else None
        if mean is not None and mean.op == "mean" and len(graph.tensor(node.outputs[0]).shape) == 2:
            edit.replace(mean, mean.with_(outputs=node.outputs, attrs=MeanAttrs(keep_dims=False)))
        else:
            edit.append(node)
    return edit.finish()


def _part_of_part(first: SliceAttrs, second: SliceAttrs) -> SliceAttrs:
    axes = range(len(first.begin))
    return SliceAttrs(
        tuple(first.begin[a] + second.begin[a] * first.stride[a] for a in axes),
        tuple(first.stride[a] * second.stride[a] for a in axes),
        second.size,
    )


def _moves_only_ones(node: Node, graph: Graph) -> bool:
    shape = graph.tensor(node.inputs[0]).shape
    order = [axis for axis in attrs_of(node, TransposeAttrs).permutation if shape[axis] != 1]
    moved = order != sorted(order)
    return not moved and math.prod(shape[1:]) > 0 and shape[:1] == (BATCH,)
