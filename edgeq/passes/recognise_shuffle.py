"""Finds channel shuffles written as reshape, transpose, reshape."""

from __future__ import annotations

from edgeq.ir import Graph, Node
from edgeq.ops.base import attrs_of
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.transpose import TransposeAttrs
from edgeq.passes.editing import NodeList


def recognise_shuffle(graph: Graph) -> Graph:
    """Returns the NCHW graph with [N, C, ...] -> [N, g, C / g, ...] -> swap -> [N, C, ...] as `channel_shuffle`."""
    edit = NodeList.of(graph)
    for node in graph.nodes:
        edit.append(_shuffle(node, edit, graph) or node)
    return edit.finish()


def _shuffle(node: Node, edit: NodeList, graph: Graph) -> Node | None:
    if node.op != "reshape":
        return None
    swap = edit.producer(node.inputs[0])
    if swap is None or swap.op != "transpose":
        return None
    split = edit.producer(swap.inputs[0])
    if split is None or split.op != "reshape":
        return None
    outer, inner = graph.tensor(split.inputs[0]).shape, graph.tensor(swap.inputs[0]).shape
    order = attrs_of(swap, TransposeAttrs).permutation
    if (
        graph.tensor(node.outputs[0]).shape != outer
        or len(outer) < 2
        or len(inner) < 3
        or order != (0, 2, 1, *range(3, len(inner)))
        or inner[1] * inner[2] != outer[1]
    ):
        return None
    return Node("channel_shuffle", node.name, split.inputs, node.outputs, ChannelShuffleAttrs(inner[1]))
