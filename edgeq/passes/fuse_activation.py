"""Makes a ReLU or a clip the clamp of the operator before it."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeq.ir import Graph, Node
from edgeq.ops.base import Clamp
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.passes.editing import NodeList


def fuse_activation(graph: Graph) -> Graph:
    """Returns the graph with each relu and clip fused into its producer, when it is the only reader.

    Producers with a clamp are conv, conv_transpose, linear, add, sub and mul; two clips in a row become one. In a
    quantized graph a clip that changes the quantization stays.
    """
    edit = NodeList.of(graph)
    for node in graph.nodes:
        bounds = interval(node) if keeps_quantization(node, graph) else None
        before = None if bounds is None else edit.sole_producer(node.inputs[0])
        fused = None if before is None or bounds is None else _fused(before, bounds)
        if before is None or fused is None:
            edit.append(node)
        else:
            edit.replace(before, fused.with_(outputs=node.outputs))
    return edit.finish()


def keeps_quantization(node: Node, graph: Graph) -> bool:
    """Whether the output of a one-input node has the parameters of its input; in a float graph neither has any."""
    x, y = (graph.tensor(name).quant for name in (node.inputs[0], node.outputs[0]))
    return x is y or (x is not None and x.same_as(y))


def interval(node: Node) -> Clamp | None:
    """The bounds of a relu or clip node; None for others."""
    if node.op == "relu":
        return 0.0, math.inf
    return (node.attrs.low, node.attrs.high) if isinstance(node.attrs, ClipAttrs) else None


def composed(first: Clamp, second: Clamp) -> Clamp:
    """The bounds of a clip after another: the first's, clipped by the second's."""
    low, high = (min(max(bound, second[0]), second[1]) for bound in first)
    return low, high


def _fused(before: Node, bounds: Clamp) -> Node | None:
    match before.attrs:
        case ConvAttrs() | ConvTransposeAttrs() | LinearAttrs() | ElementwiseAttrs():
            return before.with_(attrs=replace(before.attrs, clamp=composed(before.attrs.clamp, bounds)))
    inner = interval(before)
    if inner is None:
        return None
    return before.with_(op="clip", attrs=ClipAttrs(*composed(inner, bounds)))
