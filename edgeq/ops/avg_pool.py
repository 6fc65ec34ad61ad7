"""Average over a sliding window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    NO_CLAMP,
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
    requantize,
    to_nchw,
    torch_operand,
)
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.pooling import infer_pool, pool_window, taps_inside
from edgeq.ops.tflite_forms import convolution_options, pool_options, requantized, windowed_input


@dataclass(frozen=True, slots=True)
class AvgPoolAttrs(Attrs):
    """Attributes of `avg_pool`.

    Attributes:
        window: Kernel, strides, pads; dilations are 1.
        count_include_pad: Divide by the window's size everywhere, not by the taps inside the image.
    """

    window: Window
    count_include_pad: bool = False


def pool_counts(attrs: AvgPoolAttrs, height: int, width: int) -> Array:
    """Returns the divisor of each output position: int64 [out_h, out_w]."""
    window = attrs.window
    out_h, out_w = window.output_size(height, width, "avg_pool")
    if attrs.count_include_pad:
        return np.full((out_h, out_w), window.kernel[0] * window.kernel[1], dtype=np.int64)
    rows, columns = taps_inside(window, 0, height, out_h), taps_inside(window, 1, width, out_w)
    counts: Array = rows[:, None] * columns[None, :]
    return counts


def pool_sums(window: Window, x: Array, dtype: Any) -> Array:
    """Returns the sum under each window of an NCHW array padded with zeros, in `dtype`."""
    out_h, out_w = window.output_size(x.shape[2], x.shape[3], "avg_pool")
    total = np.zeros((*x.shape[:2], out_h, out_w), dtype)
    for row in window.taps(window.pad(x, 0), out_h, out_w):
        for tap in row:
            total += tap
    return total


@register
class AvgPool(Operator):
    """y = the mean under each window. Input and output share quantization when edgeq quantizes; they may differ."""

    name = "avg_pool"
    attrs_type = AvgPoolAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("AveragePool",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        window = attrs_of(node, AvgPoolAttrs).window
        if window.dilations != (1, 1):
            raise GraphError(f"{node.name}: avg_pool cannot be dilated")
        return infer_pool(window, node, graph)

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        attrs, x = attrs_of(node, AvgPoolAttrs), to_nchw(operand(values, 0), graph.layout)
        mean = pool_sums(attrs.window, x, np.float64) / pool_counts(attrs, x.shape[2], x.shape[3])
        return [from_nchw(mean.astype(np.float32), graph.layout)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        attrs, x = attrs_of(node, AvgPoolAttrs), torch_operand(values, 0)
        window, counts = attrs.window, pool_counts(attrs, x.shape[2], x.shape[3])
        top, left, bottom, right = window.pads
        if any(window.pads):
            x = torch.nn.functional.pad(x, (left, right, top, bottom))
        sums = torch.nn.functional.avg_pool2d(x, window.kernel, window.strides, divisor_override=1)
        return [sums / torch.as_tensor(counts, dtype=x.dtype, device=x.device)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        attrs, x = attrs_of(node, AvgPoolAttrs), to_nchw(operand(values, 0), graph.layout)
        quant, out = graph.quant(node.inputs[0]), graph.quant(node.outputs[0])
        acc = pool_sums(attrs.window, x.astype(np.int32) - np.int32(quant.zero_point), np.int32)
        counts = pool_counts(attrs, x.shape[2], x.shape[3]).astype(np.float32)
        multiplier = (np.float32(quant.scale) / np.float32(out.scale)) / counts
        return [from_nchw(requantize(acc, multiplier, int(out.zero_point), out.qmin, out.qmax), graph.layout)]

    def check_quant(self, node: Node, graph: Graph) -> None:
        graph.quant(node.inputs[0]), graph.quant(node.outputs[0])

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        declared, window = pool_window(source, node)
        name, include = source.name_of(node), bool(source.attribute(node, "count_include_pad", 0))
        shape = source.graph.tensor(node.input[0]).shape
        if declared.dilations != (1, 1):
            raise source.fail(node, "dilated average pooling is not supported")
        if window.pads == (0, 0, 0, 0) and window.kernel == shape[2:]:
            source.emit("mean", name, [node.input[0]], [node.output[0]], MeanAttrs(keep_dims=True))
        elif include and window != declared:
            # The declared padding counts, what ceil_mode adds does not: pad first, then count the taps inside.
            top, left, bottom, right = declared.pads
            padded = f"{node.output[0]}.padded"
            pad = PadAttrs((0, 0, top, left), (0, 0, bottom, right))
            source.emit("pad", f"{name}.pad", [node.input[0]], [padded], pad)
            rest = (0, 0, window.pads[2] - bottom, window.pads[3] - right)
            source.emit("avg_pool", name, [padded], [node.output[0]], AvgPoolAttrs(replace(window, pads=rest)))
        else:
            source.emit(
                "avg_pool",
                name,
                [node.input[0]],
                [node.output[0]],
                AvgPoolAttrs(window, include and any(window.pads)),
            )

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs = attrs_of(node, AvgPoolAttrs)
        window = _reached(attrs.window, *graph.tensor(node.inputs[0]).shape[2:])
        sink.emit(
            "AveragePool",
            list(node.inputs),
            list(node.outputs),
            node.name,
            kernel_shape=list(window.kernel),
            strides=list(window.strides),
            pads=list(window.pads),
            count_include_pad=int(attrs.count_include_pad),
        )

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """A depthwise convolution with equal weights, or AVERAGE_POOL_2D where the divisor changes at the border.

        AVERAGE_POOL_2D rounds ties away from zero and XNNPACK has none for int8; the convolution computes what the
        statement does.
        """
        attrs, y = attrs_of(node, AvgPoolAttrs), graph.tensor(node.outputs[0])
        quant, out, window = graph.quant(node.inputs[0]), graph.quant(y.name), attrs.window
        x, padding = windowed_input(sink, node, window, y.shape[1:3], int(quant.zero_point))
        height, width, channels = graph.tensor(node.inputs[0]).shape[1:]
        counts = pool_counts(attrs, height, width)
        if np.ptp(counts) == 0:
            scale = _unit_weight_scale(quant, out, int(counts[0, 0])) / np.float32(WEIGHT_CODE)
            weights = sink.constant(
                f"{node.name}.weights",
                np.full((1, *window.kernel, channels), WEIGHT_CODE, np.int8),
                QuantParams.per_tensor(float(scale), 0),
            )
            zeros = sink.constant(
                f"{node.name}.bias",
                np.zeros(channels, np.int32),
                QuantParams.per_tensor(float(np.float32(quant.scale) * scale), 0, 32),
            )
            sink.emit(
                "DEPTHWISE_CONV_2D",
                [x, weights, zeros],
                [y.name],
                version=3,
                clamp=NO_CLAMP,
                depth_multiplier=1,
                **convolution_options(window, padding),
            )
            return
        if x != node.inputs[0]:
            raise sink.fail(node, f"AVERAGE_POOL_2D cannot leave padding {window.pads} out of its count")
        same = quant.same_as(out)
        average = y.name if same else sink.activation(f"{y.name}.average", y.shape, quant)
        sink.emit("AVERAGE_POOL_2D", [x], [average], version=2, **pool_options(window, padding))
        if not same:
            requantized(sink, average, y.name)


def _reached(window: Window, height: int, width: int) -> Window:
    """The window without the padding behind its last position: runtimes refuse padding as large as the kernel.

    What is left is smaller, because no window lies wholly in the padding.
    """
    top, left = window.pads[:2]
    sizes = zip((height, width), window.output_size(height, width, "avg_pool"), (top, left), strict=True)
    bottom, right = (
        max(0, (outputs - 1) * window.strides[axis] + window.kernel[axis] - before - size)
        for axis, (size, outputs, before) in enumerate(sizes)
    )
    return replace(window, pads=(top, left, bottom, right))


WEIGHT_CODE = 64
"""The code of every weight of an average that is written as a convolution.

A power of two changes no bit of a float32 product, and the bits that it adds below the point are those in which the
built-in kernels' two roundings err.
"""


def _unit_weight_scale(quant: QuantParams, out: QuantParams, count: int) -> np.float32:
    """Returns the scale s_w with (s_x * s_w) / s_y = (s_x / s_y) / count in float32, or the nearest to it."""
    source, target = np.float32(quant.scale), np.float32(out.scale)
    wanted = (source / target) / np.float32(count)
    scale = np.float32(1) / np.float32(count)
    candidates = [scale]
    for direction in (np.float32(0), np.float32(2)):
        near = scale
        for _ in range(4):
            near = np.nextafter(near, direction)
            candidates.append(near)
    return min(candidates, key=lambda s: abs(float((source * s) / target) - float(wanted)))
