"""Convolution with groups, dilation and asymmetric padding; depthwise convolution is its case groups = channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    NO_CLAMP,
    Clamp,
    Int4Storage,
    OnnxSink,
    OnnxSource,
    Operator,
    Shape,
    TfliteSink,
    TorchTensor,
    Window,
    attrs_of,
    from_nchw,
    nchw_shape,
    register,
    shape_from_nchw,
    to_nchw,
    torch_clamp,
    torch_operand,
    weight_to_oihw,
)
from edgeq.ops.tflite_forms import (
    bias_or_zeros,
    convolution_options,
    fully_connected,
    packs_linear,
    widened,
    windowed_input,
)
from edgeq.ops.weighted import check_weighted, finish_channels


@dataclass(frozen=True, slots=True)
class ConvAttrs(Attrs):
    """Attributes of `conv`.

    Attributes:
        window: Kernel, strides, pads, dilations.
        groups: Input channels are split into this many parts, each with its own filters.
        clamp: Fused activation: real bounds of the output.
    """

    window: Window
    groups: int = 1
    clamp: Clamp = NO_CLAMP


def exact_matmul(a: Array, b: Array, bound: int) -> Array:
    """Returns the integer product a @ b through floating-point matrix multiplication, exactly.

    Every partial sum is an integer of magnitude at most `bound`, so float32 is exact while bound <= 2**24 and
    float64 while bound <= 2**53, in whatever order the library adds.

    Args:
        a: Integer-valued, shape (..., m, k).
        b: Integer-valued, shape (..., k, n).
        bound: At least max |a| summed against max |b| over k.

    Returns:
        float32 or float64 array of integers, shape (..., m, n).
    """
    dtype = np.float32 if bound <= 1 << 24 else np.float64
    return np.asarray(np.matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False)))


def convolve(x: Array, w: Array, attrs: ConvAttrs, pad_value: float, bound: int | None) -> Array:
    """Returns the raw sums of a convolution, NCHW.

    Args:
        x: Input [n, c, h, w]; float, or integer-valued with its zero point already subtracted.
        w: Weights [o, c / groups, kh, kw].
        attrs: Window and groups.
        pad_value: What the border holds.
        bound: For integers, the bound that `exact_matmul` wants; None for plain float arithmetic.
    """
    n, channels = x.shape[:2]
    out_h, out_w = attrs.window.output_size(x.shape[2], x.shape[3], "conv")
    taps = attrs.window.taps(attrs.window.pad(x, pad_value), out_h, out_w)
    groups, out_channels = attrs.groups, w.shape[0]
    if groups == channels and w.shape[1] == 1 and out_channels == channels:
        dtype = x.dtype if bound is None else np.dtype(np.float32 if bound <= 1 << 24 else np.float64)
        return _depthwise(taps, w.astype(dtype), dtype)
    kernel = w.shape[2] * w.shape[3]
    # [n, c, kh * kw, out_h, out_w]; one tap needs no copy.
    columns = taps[0][0] if kernel == 1 else np.stack([tap for row in taps for tap in row], axis=2)
    columns = columns.reshape(n, groups, channels // groups * kernel, out_h * out_w)
    filters = w.reshape(groups, out_channels // groups, -1)
    if bound is None:
        sums = np.matmul(filters, columns)
    else:
        sums = exact_matmul(filters, columns, bound)
    return np.asarray(sums.reshape(n, out_channels, out_h, out_w))


def _depthwise(taps: list[list[Array]], w: Array, dtype: np.dtype[Any]) -> Array:
    """Sums tap * weight channel by channel, in blocks of channels whose sums stay in the cache."""
    n, channels, out_h, out_w = taps[0][0].shape
    total = np.zeros((n, channels, out_h, out_w), dtype)
    step = max(1, (1 << 15) // (out_h * out_w))
    product = np.empty((step, out_h, out_w), dtype)
    for sample in range(n):
        for begin in range(0, channels, step):
            block = slice(begin, min(begin + step, channels))
            part = product[: block.stop - begin]
            for i, row in enumerate(taps):
                for j, tap in enumerate(row):
                    np.multiply(tap[sample, block], w[block, 0, i, j, None, None], out=part)
                    total[sample, block] += part
    return total


@register
class Conv(Operator):
    """y = clamp(conv(x, w) + bias). Inputs: x, w, optional bias."""

    name = "conv"
    attrs_type = ConvAttrs
    onnx_types = ("Conv",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        attrs = _attrs(node)
        n, c, h, w = nchw_shape(graph.tensor(node.inputs[0]), graph.layout, node)
        weights = graph.tensor(node.inputs[1])
        if weights.data is None:
            raise GraphError(f"{node.name}: convolution weights must be constant")
        o, ci, kh, kw = weight_to_oihw(weights.data, graph.layout).shape
        if (kh, kw) != attrs.window.kernel or ci * attrs.groups != c or o % attrs.groups:
            raise GraphError(
                f"{node.name}: weights [{o}, {ci}, {kh}, {kw}] with {attrs.groups} groups do not fit {c} channels"
            )
        if len(node.inputs) > 2 and node.inputs[2] and graph.tensor(node.inputs[2]).shape != (o,):
            raise GraphError(f"{node.name}: bias must have shape [{o}]")
        out_h, out_w = attrs.window.output_size(h, w, node.name)
        return [(shape_from_nchw(n, o, out_h, out_w, graph.layout), "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        x, w, bias = _operands(values)
        y = convolve(to_nchw(x, graph.layout), weight_to_oihw(w, graph.layout), _attrs(node), 0.0, None)
        if bias is not None:
            y = y + bias[:, None, None]
        low, high = _attrs(node).clamp
        return [from_nchw(np.clip(y, low, high).astype(np.float32, copy=False), graph.layout)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        attrs, x, bias = _attrs(node), torch_operand(values, 0), values[2] if len(values) > 2 else None
        (top, left, bottom, right), pads = attrs.window.pads, attrs.window.pads[:2]
        if (top, left) != (bottom, right):
            x, pads = torch.nn.functional.pad(x, (left, right, top, bottom)), (0, 0)
        y = torch.nn.functional.conv2d(
            x, torch_operand(values, 1), bias, attrs.window.strides, pads, attrs.window.dilations, attrs.groups
        )
        return [torch_clamp(y, attrs.clamp)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        acc = self.accumulate(node, values, graph)
        return [from_nchw(finish_channels(acc, node, graph, _attrs(node).clamp, 1), graph.layout)]

    def accumulate(self, node: Node, values: Sequence[Array | None], graph: Graph) -> Array:
        """Returns the exact accumulators, bias included, as int32 [n, o, out_h, out_w] (NCHW in either layout)."""
        x, w, bias = _operands(values)
        quant = graph.quant(node.inputs[0])
        zero = int(quant.zero_point)
        centred = to_nchw(x, graph.layout).astype(np.float32) - np.float32(zero)
        largest = max(quant.qmax - zero, zero - quant.qmin)
        oihw = weight_to_oihw(w, graph.layout)
        bound = largest * int(np.abs(oihw.astype(np.int64)).sum(axis=(1, 2, 3)).max(initial=0))
        # `check_weighted` has made sure that 32 bits hold every sum, bias included.
        acc = convolve(centred, oihw, _attrs(node), 0.0, bound).astype(np.int32)
        if bias is not None:
            acc += bias[:, None, None]
        return acc

    def check_quant(self, node: Node, graph: Graph) -> None:
        check_weighted(node, graph)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        weights = source.require_constant(node, 1, "weights")
        x = source.graph.tensor(node.input[0])
        if weights.ndim != 4 or len(x.shape) != 4:
            raise source.fail(
                node,
                "only 1-D and 2-D convolution is supported, with one or two axes behind the channels of input and "
                f"weights alike; they have the shapes {list(x.shape)} and {list(weights.shape)}",
            )
        window = window_from_onnx(source, node, (weights.shape[2], weights.shape[3]), x.shape[2:])
        name = source.name_of(node)
        inputs = [node.input[0], source.add_constant(f"{name}.weight", weights.astype(np.float32))]
        if len(node.input) > 2 and node.input[2]:
            bias = source.require_constant(node, 2, "bias")
            inputs.append(source.add_constant(f"{name}.bias", bias.astype(np.float32)))
        attrs = ConvAttrs(window, int(source.attribute(node, "group", 1)))
        source.emit("conv", name, inputs, list(node.output), attrs)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs = _attrs(node)
        raw = node.outputs[0] if attrs.clamp == NO_CLAMP else sink.fresh(f"{node.outputs[0]}.preactivation")
        sink.emit(
            "Conv",
            [name for name in node.inputs if name],
            [raw],
            node.name,
            kernel_shape=list(attrs.window.kernel),
            strides=list(attrs.window.strides),
            pads=list(attrs.window.pads),
            dilations=list(attrs.window.dilations),
            group=attrs.groups,
        )
        emit_clamp(sink, attrs.clamp, raw, node.outputs[0], node.name)

    def macs(self, node: Node, graph: Graph) -> int:
        _n, _o, h, w = nchw_shape(graph.tensor(node.outputs[0]), graph.layout, node)
        weights = graph.tensor(node.inputs[1])
        return h * w * int(np.prod(weights.shape))

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        attrs, quant = attrs_of(node, ConvAttrs), graph.quant(node.inputs[1])
        weights = graph.constant(node.inputs[1])
        assert weights is not None
        channels, outputs = graph.tensor(node.inputs[0]).shape[3], weights.shape[0]
        pointwise = attrs == ConvAttrs(Window((1, 1)), 1, attrs.clamp)
        if pointwise and quant.bits == 4 and sink.int4 is not Int4Storage.OLD and packs_linear(sink.int4, channels):
            fully_connected(sink, node, graph, node.inputs[0], weights[:, 0, 0], attrs.clamp)
            return
        packed = sink.int4 in (Int4Storage.PACKED, Int4Storage.OLD)
        quant = quant if packed else widened(sink, node, quant)
        border = int(graph.quant(node.inputs[0]).zero_point)
        x, padding = windowed_input(sink, node, attrs.window, graph.tensor(node.outputs[0]).shape[1:3], border)
        bias = bias_or_zeros(sink, node, graph, outputs)
        version = 7 if quant.bits == 4 else 3
        if attrs.groups == channels > 1:
            moved = quant if quant.axis is None else replace(quant, axis=3)
            filters = sink.constant(f"{node.inputs[1]}.depthwise", weights.transpose(3, 1, 2, 0), moved)
            sink.emit(
                "DEPTHWISE_CONV_2D",
                [x, filters, bias],
                list(node.outputs),
                version=version,
                clamp=attrs.clamp,
                depth_multiplier=outputs // channels,
                **convolution_options(attrs.window, padding),
            )
            return
        if attrs.groups > 1 and version == 3:
            version = 6
        filters = sink.constant(f"{node.inputs[1]}.filters", weights, quant)
        sink.emit(
            "CONV_2D",
            [x, filters, bias],
            list(node.outputs),
            version=version,
            clamp=attrs.clamp,
            **convolution_options(attrs.window, padding),
        )


def window_from_onnx(source: OnnxSource, node: Any, kernel: tuple[int, int], size: Sequence[int]) -> Window:
    """Reads strides, dilations, pads or auto_pad of a 2-D ONNX node over an input of `size` (height, width)."""
    strides = tuple(int(v) for v in source.attribute(node, "strides", [1, 1]))
    dilations = tuple(int(v) for v in source.attribute(node, "dilations", [1, 1]))
    if len(strides) != 2 or len(dilations) != 2 or min(*strides, *dilations, *kernel) < 1:
        raise source.fail(
            node,
            f"kernel {list(kernel)}, strides {list(strides)} or dilations {list(dilations)} are not 2-D and positive",
        )
    auto_pad = source.attribute(node, "auto_pad", "NOTSET")
    auto_pad = auto_pad.decode() if isinstance(auto_pad, bytes) else auto_pad
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for axis in range(2):
            span = dilations[axis] * (kernel[axis] - 1) + 1
            total = max((-(-int(size[axis]) // strides[axis]) - 1) * strides[axis] + span - int(size[axis]), 0)
            small, large = total // 2, total - total // 2
            begins.append(small if auto_pad == "SAME_UPPER" else large)
            ends.append(large if auto_pad == "SAME_UPPER" else small)
        pads = (*begins, *ends)
    elif auto_pad == "VALID":
        pads = (0, 0, 0, 0)
    else:
        pads = tuple(int(v) for v in source.attribute(node, "pads", [0, 0, 0, 0]))
    if len(pads) != 4 or min(pads) < 0:
        raise source.fail(node, f"pads {list(pads)} are not supported: four of them, none negative")
    return Window(kernel, strides, pads, dilations)


def emit_clamp(sink: OnnxSink, clamp: Clamp, raw: str, out: str, name: str) -> None:
    """Emits the fused activation of a node as Relu or Clip from `raw` to `out`; nothing when there is none."""
    if clamp == NO_CLAMP:
        return
    if clamp == (0.0, np.inf):
        sink.emit("Relu", [raw], [out], f"{name}.relu")
        return
    bounds = [
        "" if np.isinf(bound) else sink.initializer(f"{name}.{side}", np.float32(bound))
        for side, bound in zip(("min", "max"), clamp, strict=False)
    ]
    sink.emit("Clip", [raw, *bounds], [out], f"{name}.clip")


def _attrs(node: Node) -> ConvAttrs:
    assert isinstance(node.attrs, ConvAttrs)
    return node.attrs


def _operands(values: Sequence[Array | None]) -> tuple[Array, Array, Array | None]:
    x, w = values[0], values[1]
    assert x is not None
    assert w is not None
    return x, w, values[2] if len(values) > 2 else None
