"""What max_pool and avg_pool share: taps inside the image, and ONNX's ceil_mode as plain padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSource, Shape, Window, nchw_shape, shape_from_nchw
from edgeq.ops.conv import window_from_onnx


def taps_inside(window: Window, axis: int, size: int, outputs: int) -> Array:
    """Returns, for each output position along an axis (0 height, 1 width), how many taps lie inside the image."""
    if outputs * window.kernel[axis] > 1 << 24:
        raise GraphError(f"a pooling window of {window.kernel} over {outputs} positions is too large")
    starts = np.arange(outputs)[:, None] * window.strides[axis] - window.pads[axis]
    taps = starts + np.arange(window.kernel[axis])[None, :] * window.dilations[axis]
    inside: Array = ((taps >= 0) & (taps < size)).sum(axis=1)
    return inside


def _has_empty_window(window: Window, axis: int, size: int, outputs: int) -> bool:
    """Whether `taps_inside` holds a 0, found without making that array: sizes may come from a hostile file."""
    kernel, stride, dilation = window.kernel[axis], window.strides[axis], window.dilations[axis]
    pad = window.pads[axis]
    # A window that starts inside the image has its first tap there; only those that start before it need a look.
    if (outputs - 1) * stride - pad >= size:
        return True
    for position in range(min(outputs, -(-pad // stride))):
        start = position * stride - pad
        landing = start % dilation
        if landing >= size or (landing - start) // dilation >= kernel:
            return True
        if dilation <= size:  # Later windows reach further into the image, and land in it.
            break
    return False


def infer_pool(window: Window, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
    """Shape rule of both pools; raises GraphError when a window lies wholly in the padding."""
    n, c, h, w = nchw_shape(graph.tensor(node.inputs[0]), graph.layout, node)
    out_h, out_w = window.output_size(h, w, node.name)
    for axis, (size, outputs) in enumerate(((h, out_h), (w, out_w))):
        if _has_empty_window(window, axis, size, outputs):
            raise GraphError(f"{node.name}: a window of {node.op} lies wholly in the padding {window.pads}")
    return [(shape_from_nchw(n, c, out_h, out_w, graph.layout), "float32")]


def reduced_axes(source: OnnxSource, node: Any) -> list[int]:
    """Returns the axes that a reduction goes over, ascending: those of its attribute or input, else all."""
    rank = len(source.graph.tensor(node.input[0]).shape)
    axes = source.attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = source.require_constant(node, 1, "axes").reshape(-1)
    return sorted(int(axis) % rank for axis in axes) if axes is not None else list(range(rank))


def pool_window(source: OnnxSource, node: Any) -> tuple[Window, Window]:
    """Returns (the window as declared, the window with ceil_mode turned into padding at the bottom and right)."""
    shape = source.graph.tensor(node.input[0]).shape
    kernel = tuple(int(v) for v in source.attribute(node, "kernel_shape", []))
    if len(kernel) != 2 or len(shape) != 4:
        raise source.fail(
            node,
            "only 1-D and 2-D pooling is supported, with one or two axes behind the channels; the input has the shape "
            f"{list(shape)}, kernel_shape is {list(kernel)}",
        )
    declared = window_from_onnx(source, node, kernel, shape[2:])
    if not source.attribute(node, "ceil_mode", 0):
        return declared, declared
    pads = list(declared.pads)
    for axis in range(2):
        span = declared.dilations[axis] * (kernel[axis] - 1) + 1
        stride = declared.strides[axis]
        room = shape[2 + axis] + pads[axis] + pads[axis + 2] - span
        outputs = -(-room // stride) + 1
        # A last window that would start beyond the image and its leading padding is dropped (ONNX, as in PyTorch).
        if (outputs - 1) * stride >= shape[2 + axis] + pads[axis]:
            outputs -= 1
        pads[axis + 2] += max((outputs - 1) * stride - room, 0)
    return declared, replace(declared, pads=(pads[0], pads[1], pads[2], pads[3]))
