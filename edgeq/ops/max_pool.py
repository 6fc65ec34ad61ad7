"""Maximum over a sliding window; padding never wins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    OnnxSource,
    Operator,
    QuantRule,
    Shape,
    TfliteSink,
    TorchTensor,
    Window,
    attrs_of,
    from_nchw,
    operand,
    register,
    to_nchw,
    torch_operand,
)
from edgeq.ops.pooling import infer_pool, pool_window, reduced_axes
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.tflite_forms import pad, pool_options, strided_slice, windowed_input


@dataclass(frozen=True, slots=True)
class MaxPoolAttrs(Attrs):
    """Attributes of `max_pool`.

    Attributes:
        window: Kernel, strides, pads, dilations.
    """

    window: Window


@register
class MaxPool(Operator):
    """y = the largest value under each window."""

    name = "max_pool"
    attrs_type = MaxPoolAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("GlobalMaxPool", "MaxPool", "ReduceMax")

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        return infer_pool(attrs_of(node, MaxPoolAttrs).window, node, graph)

    def _run(self, node: Node, x: Array, graph: Graph, lowest: float) -> Array:
        window, nchw = attrs_of(node, MaxPoolAttrs).window, to_nchw(x, graph.layout)
        out_h, out_w = window.output_size(nchw.shape[2], nchw.shape[3], node.name)
        taps = [tap for row in window.taps(window.pad(nchw, lowest), out_h, out_w) for tap in row]
        largest = taps[0].copy()
        for tap in taps[1:]:
            np.maximum(largest, tap, out=largest)
        return from_nchw(largest, graph.layout)

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return [self._run(node, operand(values, 0), graph, -np.inf)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        window, x = attrs_of(node, MaxPoolAttrs).window, torch_operand(values, 0)
        top, left, bottom, right = window.pads
        if any(window.pads):
            x = torch.nn.functional.pad(x, (left, right, top, bottom), value=-math.inf)
        return [torch.nn.functional.max_pool2d(x, window.kernel, window.strides, 0, window.dilations)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        # Every window has a tap inside the image, so the smallest code in the border never decides.
        return [self._run(node, operand(values, 0), graph, -128)]

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        if node.op_type != "MaxPool":
            self._over_whole_axes(source, node)
            return
        if len(node.output) > 1 and node.output[1]:
            raise source.fail(node, "the indices output is not supported")
        _, window = pool_window(source, node)
        source.emit("max_pool", source.name_of(node), [node.input[0]], [node.output[0]], MaxPoolAttrs(window))

    def _over_whole_axes(self, source: OnnxSource, node: Any) -> None:
        """The maximum over height, width or both: a window as large as they are."""
        shape, axes, keep = source.graph.tensor(node.input[0]).shape, [2, 3], True
        if node.op_type == "ReduceMax":
            axes, keep = reduced_axes(source, node), bool(source.attribute(node, "keepdims", 1))
        if len(shape) != 4 or axes not in ([2], [3], [2, 3]):
            raise source.fail(
                node,
                f"only the maximum over height, width or both is supported, got axes {axes} of {list(shape)}",
            )
        name, out = source.name_of(node), node.output[0]
        window = Window((shape[2] if 2 in axes else 1, shape[3] if 3 in axes else 1))
        pooled = out if keep else f"{name}.pooled"
        source.emit("max_pool", name, [node.input[0]], [pooled], MaxPoolAttrs(window))
        if not keep:
            left = tuple(size for axis, size in enumerate(shape) if axis not in axes)
            source.emit("reshape", f"{name}.reshape", [pooled], [out], ReshapeAttrs(left))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        window = attrs_of(node, MaxPoolAttrs).window
        source = node.inputs[0]
        # Runtimes refuse padding as large as the kernel, which ceil_mode as padding can need.
        if any(window.pads[i] >= window.kernel[i % 2] for i in range(4)):
            source = sink.fresh(f"{node.outputs[0]}.padded")
            top, left, bottom, right = window.pads
            pads = sink.initializer(f"{node.name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
            lowest = sink.initializer(f"{node.name}.lowest", np.asarray(np.finfo(np.float32).min, np.float32))
            sink.emit("Pad", [node.inputs[0], pads, lowest], [source], f"{node.name}.pad")
            window = Window(window.kernel, window.strides, (0, 0, 0, 0), window.dilations)
        sink.emit(
            "MaxPool",
            [source],
            list(node.outputs),
            node.name,
            kernel_shape=list(window.kernel),
            strides=list(window.strides),
            pads=list(window.pads),
            dilations=list(window.dilations),
        )

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        window, y = attrs_of(node, MaxPoolAttrs).window, graph.tensor(node.outputs[0])
        if window.dilations == (1, 1):
            x, padding = windowed_input(sink, node, window, y.shape[1:3], -128)
            sink.emit("MAX_POOL_2D", [x], [y.name], version=2, **pool_options(window, padding))
            return
        # The builtin cannot be dilated: the MAXIMUM of the taps, each a strided part of the padded image.
        top, left, bottom, right = window.pads
        x = pad(sink, f"{y.name}.padded", node.inputs[0], (0, top, left, 0), (0, bottom, right, 0), -128)
        largest = ""
        for row, column in itertools.product(*(range(size) for size in window.kernel)):
            begin = (0, row * window.dilations[0], column * window.dilations[1], 0)
            last = (row, column) == (window.kernel[0] - 1, window.kernel[1] - 1)
            tap = sink.activation(f"{y.name}.tap", y.shape, y.quant)
            strided_slice(sink, x, tap, begin, (1, *window.strides, 1))
            if largest:
                both = y.name if last else sink.activation(f"{y.name}.largest", y.shape, y.quant)
                sink.emit("MAXIMUM", [largest, tap], [both], version=2)
                tap = both
            largest = tap
