"""Moves explicit padding into the operator that reads it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeq.ir import Graph, Node
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import Window, attrs_of
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.pooling import taps_inside


def fold_pad(graph: Graph) -> Graph:
    """Returns the NCHW graph with padding of height and width folded into convolutions and pools.

    Zeros fold into a convolution always; into an average pool that counts padding, or has none of its own; into a
    maximum pool where nothing below zero can be in the window. The lowest float folds into a maximum pool.
    """
    producers = graph.producers()
    result = graph.copy()
    result.nodes = [_folded(node, producers, graph) for node in graph.nodes]
    return result.prune()


def _folded(node: Node, producers: dict[str, Node], graph: Graph) -> Node:
    if node.op not in ("conv", "avg_pool", "max_pool"):
        return node
    pad = producers.get(node.inputs[0])
    if pad is None or pad.op != "pad":
        return node
    border = attrs_of(pad, PadAttrs)
    if any(border.before[:2] + border.after[:2]):
        return node
    extra = border.before[2:] + border.after[2:]

    def grown(window: Window) -> Window:
        top, left, bottom, right = (a + b for a, b in zip(window.pads, extra, strict=True))
        return replace(window, pads=(top, left, bottom, right))

    inputs = (pad.inputs[0], *node.inputs[1:])
    zero = border.value == 0
    match node.attrs:
        case ConvAttrs() if zero:
            return node.with_(inputs=inputs, attrs=replace(node.attrs, window=grown(node.attrs.window)))
        case AvgPoolAttrs(window, counted) if zero and (counted or not any(window.pads)):
            if _reaches_the_image(grown(window), pad, graph):
                return node.with_(inputs=inputs, attrs=AvgPoolAttrs(grown(window), count_include_pad=True))
        case MaxPoolAttrs(window):
            harmless = border.value <= float(np.finfo(np.float32).min) or (
                zero and _never_negative(producers.get(pad.inputs[0]))
            )
            if harmless and _reaches_the_image(grown(window), pad, graph):
                return node.with_(inputs=inputs, attrs=MaxPoolAttrs(grown(window)))
    return node


def _reaches_the_image(window: Window, pad: Node, graph: Graph) -> bool:
    height, width = graph.tensor(pad.inputs[0]).shape[2:]
    outputs = window.output_size(height, width, pad.name)
    return all(
        int(taps_inside(window, axis, size, outputs[axis]).min()) > 0
        for axis, size in enumerate((height, width))
    )


def _never_negative(producer: Node | None) -> bool:
    if producer is None:
        return False
    match producer.attrs:
        case ClipAttrs(low):
            return low >= 0
        case ConvAttrs(clamp=clamp) | LinearAttrs(clamp=clamp) | ElementwiseAttrs(clamp=clamp):
            return clamp[0] >= 0
    return producer.op in ("relu", "sigmoid", "hard_sigmoid", "softmax")
