"""A float network as a .tflite file: what tools that quantize .tflite files start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.exporters.tflite.builder import ModelBuilder
from edgeq.ir import BATCH, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import NO_CLAMP, Clamp, attrs_of
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.slice import SliceAttrs
from edgeq.ops.tflite_forms import convolution_options, reshaped, strided_slice
from edgeq.passes import channels_last

_FUSED = {NO_CLAMP: "NONE", (0.0, np.inf): "RELU", (0.0, 6.0): "RELU6"}


def to_float_tflite(graph: Graph) -> bytes:
    """Writes a float graph as TFLite's own converter lays it out: channels last, batch norm and activations folded.

    Args:
        graph: Float and NCHW, after `float_pipeline`, of convolutions, linear layers, additions, means over the
            image, slices, constant padding and reshapes.

    Raises:
        GraphError: If it holds another operator, or an activation other than ReLU and ReLU6.
        BackendError: If ai-edge-litert is not installed.
    """
    turned = channels_last(graph)
    builder = ModelBuilder(turned, integer_ends=False)
    for node in turned.nodes:
        row = _ROWS.get(node.op)
        if row is None:
            raise GraphError(f"{node.name}: {node.op} has no float TFLite form here; add a row for it")
        row(builder, node, turned)
    return builder.finish(None)


def _conv(sink: ModelBuilder, node: Node, graph: Graph) -> None:
    attrs, weights = attrs_of(node, ConvAttrs), _constant(graph, node.inputs[1])
    channels, outputs = graph.tensor(node.inputs[0]).shape[3], weights.shape[0]
    x, padding = _windowed(sink, node, graph, attrs)
    options = {**convolution_options(attrs.window, padding), "fused_activation_function": _fused(node, attrs.clamp)}
    depthwise = attrs.groups == channels > 1
    if attrs.groups != 1 and not depthwise:
        raise GraphError(f"{node.name}: a convolution of {attrs.groups} groups has no float TFLite form here")
    if depthwise:
        options["depth_multiplier"] = outputs // channels
        weights = np.ascontiguousarray(weights.transpose(3, 1, 2, 0))
    filters = sink.constant(f"{node.inputs[1]}.filters", weights)
    operands = [x, filters, _bias(sink, node, outputs)]
    sink.emit("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", operands, list(node.outputs), **options)


def _windowed(sink: ModelBuilder, node: Node, graph: Graph, attrs: ConvAttrs) -> tuple[str, str]:
    """Returns (input, padding): TFLite's SAME puts the larger half behind the image, so others need a PAD."""
    name, window = node.inputs[0], attrs.window
    if not any(window.pads):
        return name, "VALID"
    shape, made = graph.tensor(name).shape, graph.tensor(node.outputs[0]).shape
    same = True
    for axis in range(2):
        size, stride = shape[axis + 1], window.strides[axis]
        span = window.dilations[axis] * (window.kernel[axis] - 1) + 1
        needed = max((made[axis + 1] - 1) * stride + span - size, 0)
        same &= made[axis + 1] == -(-size // stride) and window.pads[axis] == needed // 2
    if same:
        return name, "SAME"
    top, left, bottom, right = window.pads
    before, after = (0, top, left, 0), (0, bottom, right, 0)
    padded = [BATCH if s == BATCH else s + b + a for s, b, a in zip(shape, before, after, strict=True)]
    out = sink.activation(f"{node.outputs[0]}.padded", padded, None, "float32")
    _emit_pad(sink, name, out, before, after)
    return out, "VALID"


def _linear(sink: ModelBuilder, node: Node, graph: Graph) -> None:
    weights = _constant(graph, node.inputs[1])
    keep = len(graph.tensor(node.inputs[0]).shape) > 2
    sink.emit(
        "FULLY_CONNECTED",
        [node.inputs[0], sink.constant(f"{node.inputs[1]}.matrix", weights), _bias(sink, node, weights.shape[0])],
        list(node.outputs),
        version=5 if keep else 1,
        keep_num_dims=keep,
        fused_activation_function=_fused(node, attrs_of(node, LinearAttrs).clamp),
    )


def _add(sink: ModelBuilder, node: Node, graph: Graph) -> None:
    fused = _fused(node, attrs_of(node, ElementwiseAttrs).clamp)
    sink.emit("ADD", list(node.inputs), list(node.outputs), fused_activation_function=fused)


def _mean(sink: ModelBuilder, node: Node, graph: Graph) -> None:
    axes = sink.constant("height and width", np.array([1, 2], np.int32))
    keep = attrs_of(node, MeanAttrs).keep_dims
    sink.emit("MEAN", [node.inputs[0], axes], list(node.outputs), keep_dims=keep)


def _slice(sink: ModelBuilder, node: Node, graph: Graph) -> None:
    attrs = attrs_of(node, SliceAttrs)
    strided_slice(sink, node.inputs[0], node.outputs[0], attrs.begin, attrs.stride)


def _pad(sink: ModelBuilder, node: Node, graph: Graph) -> None:
    attrs = attrs_of(node, PadAttrs)
    if attrs.value != 0:
        raise GraphError(f"{node.name}: a border of {attrs.value} has no float TFLite form here; 0 has")
    _emit_pad(sink, node.inputs[0], node.outputs[0], attrs.before, attrs.after)


def _reshape(sink: ModelBuilder, node: Node, graph: Graph) -> None:
    reshaped(sink, node.inputs[0], node.outputs[0])


def _emit_pad(sink: ModelBuilder, x: str, y: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    amounts = sink.constant(f"{y}.amounts", np.array([before, after], np.int32).T.copy())
    sink.emit("PAD", [x, amounts], [y])


def _fused(node: Node, clamp: Clamp) -> str:
    if clamp not in _FUSED:
        raise GraphError(f"{node.name}: an activation between {clamp[0]} and {clamp[1]} has no float TFLite form here")
    return _FUSED[clamp]


def _bias(sink: ModelBuilder, node: Node, channels: int) -> str:
    if len(node.inputs) > 2 and node.inputs[2]:
        return node.inputs[2]
    return sink.constant(f"{node.name}.bias", np.zeros(channels, np.float32))


def _constant(graph: Graph, name: str) -> Array:
    values = graph.constant(name)
    assert values is not None
    return values


_ROWS: dict[str, Any] = {
    "conv": _conv,
    "linear": _linear,
    "add": _add,
    "mean": _mean,
    "slice": _slice,
    "pad": _pad,
    "reshape": _reshape,
}
