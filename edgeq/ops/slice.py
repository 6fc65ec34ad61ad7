"""A strided part of a tensor; Split and Gather of regular indices become slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    OnnxSource,
    Operator,
    QuantRule,
    Shape,
    TfliteSink,
    TorchTensor,
    attrs_of,
    operand,
    register,
    torch_operand,
)
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs, shuffled_channels
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.tflite_forms import strided_slice


@dataclass(frozen=True, slots=True)
class SliceAttrs(Attrs):
    """Attributes of `slice`; each has an entry an axis, in the graph's own layout.

    Attributes:
        begin: First index; 0 for the batch axis.
        stride: Step, positive; 1 for the batch axis.
        size: Number of elements kept; BATCH for the batch axis.
    """

    begin: tuple[int, ...]
    stride: tuple[int, ...]
    size: tuple[int, ...]


def part_of(shape: Shape, axis: int, begin: int, size: int, stride: int = 1) -> SliceAttrs:
    """Returns the attributes that cut one axis of a shape and keep the others whole."""
    rank = len(shape)
    return SliceAttrs(
        tuple(begin if i == axis else 0 for i in range(rank)),
        tuple(stride if i == axis else 1 for i in range(rank)),
        tuple(size if i == axis else shape[i] for i in range(rank)),
    )


@register
class Slice(Operator):
    """y[i] = x[begin + i * stride] on every axis."""

    name = "slice"
    attrs_type = SliceAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("Slice", "Split", "Gather")

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        attrs, shape = attrs_of(node, SliceAttrs), graph.tensor(node.inputs[0]).shape
        rank = len(shape)
        if not len(attrs.begin) == len(attrs.stride) == len(attrs.size) == rank:
            raise GraphError(f"{node.name}: slice needs an entry for each of the {rank} axes")
        for axis, (begin, stride, size) in enumerate(zip(attrs.begin, attrs.stride, attrs.size, strict=False)):
            if shape[axis] == BATCH:
                fits = (begin, stride, size) == (0, 1, BATCH)
            else:
                fits = begin >= 0 and stride >= 1 and size >= 1 and begin + (size - 1) * stride < shape[axis]
            if not fits:
                raise GraphError(
                    f"{node.name}: begin {begin}, stride {stride}, size {size} do not fit axis {axis} of {list(shape)}"
                )
        return [(attrs.size, "float32")]

    def _run(self, node: Node, values: Sequence[Array | None]) -> list[Array]:
        attrs, x = attrs_of(node, SliceAttrs), operand(values, 0)
        index = tuple(
            slice(None) if size == BATCH else slice(begin, begin + (size - 1) * stride + 1, stride)
            for begin, stride, size in zip(attrs.begin, attrs.stride, attrs.size, strict=False)
        )
        return [np.ascontiguousarray(x[index])]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        attrs = attrs_of(node, SliceAttrs)
        part = tuple(
            slice(None) if size == BATCH else slice(begin, begin + (size - 1) * stride + 1, stride)
            for begin, stride, size in zip(attrs.begin, attrs.stride, attrs.size, strict=True)
        )
        return [torch_operand(values, 0)[part]]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        {"Slice": _from_slice, "Split": _from_split, "Gather": _from_gather}[node.op_type](source, node)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs, shape = attrs_of(node, SliceAttrs), graph.tensor(node.inputs[0]).shape
        axes = [a for a in range(len(shape)) if attrs.size[a] != shape[a] or attrs.stride[a] != 1]
        if not axes:
            sink.emit("Identity", list(node.inputs), list(node.outputs), node.name)
            return
        begins = [attrs.begin[a] for a in axes]
        steps = [attrs.stride[a] for a in axes]
        ends = [attrs.begin[a] + (attrs.size[a] - 1) * attrs.stride[a] + 1 for a in axes]
        fields = {"starts": begins, "ends": ends, "axes": axes, "steps": steps}
        names = [sink.initializer(f"{node.name}.{key}", np.array(v, np.int64)) for key, v in fields.items()]
        sink.emit("Slice", [node.inputs[0], *names], list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        attrs = attrs_of(node, SliceAttrs)
        if set(attrs.stride) == {1}:
            begin = sink.constant(f"{node.name}.begin", np.array(attrs.begin, np.int32))
            size = sink.constant(f"{node.name}.size", np.array(attrs.size, np.int32))  # -1: to the end
            version = 5 if len(attrs.begin) > 4 else 2
            sink.emit("SLICE", [node.inputs[0], begin, size], list(node.outputs), version=version)
            return
        strided_slice(sink, node.inputs[0], node.outputs[0], attrs.begin, attrs.stride)


def _from_slice(source: OnnxSource, node: Any) -> None:
    shape = source.graph.tensor(node.input[0]).shape
    rank = len(shape)
    pairs = [source.shape_pair(node, i) if i < len(node.input) else None for i in range(1, 5)]
    if pairs[0] is None or pairs[1] is None:
        raise source.fail(node, "its starts and ends must be constant")
    count = pairs[0][0].size
    steps = (np.ones(count, np.int64),) * 2 if pairs[3] is None else pairs[3]
    axes = np.arange(count) if pairs[2] is None else pairs[2][0].reshape(-1)
    begin, stride, size = [0] * rank, [1] * rank, list(shape)
    for which, axis in enumerate(int(a) % rank for a in axes):
        found = []
        for batch in range(2):
            length = (2, 3)[batch] if axis == 0 else shape[axis]
            start, end, step = (int(p[batch].reshape(-1)[which]) for p in (pairs[0], pairs[1], steps))
            if step < 1:
                raise source.fail(node, f"step {step} of axis {axis} is not supported; steps must be positive")
            reach = range(*slice(start, end, step).indices(length))
            found.append((reach.start, step, len(reach)))
        if axis == 0:
            if found != [(0, 1, 2), (0, 1, 3)]:
                raise source.fail(node, "it cuts the batch axis")
            continue
        if found[0] != found[1]:
            raise source.fail(node, f"what it keeps of axis {axis} depends on the batch size")
        if found[0][2] < 1:
            raise source.fail(node, f"it keeps nothing of axis {axis} of {list(shape)}")
        begin[axis], stride[axis], size[axis] = found[0]
    attrs = SliceAttrs(tuple(begin), tuple(stride), tuple(size))
    source.emit("slice", source.name_of(node), [node.input[0]], [node.output[0]], attrs)


def _from_split(source: OnnxSource, node: Any) -> None:
    shape = source.graph.tensor(node.input[0]).shape
    axis = int(source.attribute(node, "axis", 0)) % len(shape)
    if axis == 0:
        raise source.fail(node, "it splits the batch axis")
    outputs = list(node.output)
    if len(node.input) > 1 and node.input[1]:
        sizes = [int(v) for v in source.require_constant(node, 1, "split sizes").reshape(-1)]
    else:
        parts = int(source.attribute(node, "num_outputs", len(outputs)))
        chunk = -(-shape[axis] // parts)
        sizes = [min(chunk, shape[axis] - i * chunk) for i in range(parts)]
    if len(sizes) != len(outputs) or sum(sizes) != shape[axis] or min(sizes) < 1:
        raise source.fail(node, f"parts {sizes} do not make up axis {axis} of {list(shape)}")
    name, begin = source.name_of(node), 0
    for i, (size, output) in enumerate(zip(sizes, outputs, strict=False)):
        if output:
            source.emit("slice", f"{name}.{i}", [node.input[0]], [output], part_of(shape, axis, begin, size))
        begin += size


def _from_gather(source: OnnxSource, node: Any) -> None:
    shape = source.graph.tensor(node.input[0]).shape
    axis = int(source.attribute(node, "axis", 0)) % len(shape)
    indices = source.require_constant(node, 1, "indices")
    flat = indices.reshape(-1).astype(np.int64)
    if axis == 0:
        raise source.fail(node, "it gathers along the batch axis")
    if indices.ndim > 1 or flat.size == 0 or np.any(flat < -shape[axis]) or np.any(flat >= shape[axis]):
        raise source.fail(
            node, f"indices of shape {list(indices.shape)} do not select from axis {axis} of {list(shape)}"
        )
    flat = flat % shape[axis]
    steps = np.diff(flat)
    name = source.name_of(node)
    if flat.size == 1 or (steps[0] >= 1 and np.all(steps == steps[0])):
        stride = int(steps[0]) if flat.size > 1 else 1
        attrs = part_of(shape, axis, int(flat[0]), flat.size, stride)
        if indices.ndim == 1:
            source.emit("slice", name, [node.input[0]], [node.output[0]], attrs)
            return
        kept = f"{node.output[0]}.kept"
        source.emit("slice", name, [node.input[0]], [kept], attrs)
        target = tuple(size for i, size in enumerate(shape) if i != axis)
        source.emit("reshape", f"{name}.reshape", [kept], [node.output[0]], ReshapeAttrs(target))
        return
    if axis == 1 and flat.size == shape[1]:
        for groups in range(2, shape[1]):
            if shape[1] % groups == 0 and np.array_equal(flat, shuffled_channels(shape[1], groups)):
                attrs_ = ChannelShuffleAttrs(groups)
                source.emit("channel_shuffle", name, [node.input[0]], [node.output[0]], attrs_)
                return
    raise source.fail(node, "its indices are neither evenly spaced nor a channel shuffle")
