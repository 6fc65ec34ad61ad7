"""Transposed convolution with groups, dilation, asymmetric padding and output padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    NO_CLAMP,
    Clamp,
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
    operand,
    register,
    shape_from_nchw,
    to_nchw,
    torch_clamp,
    torch_operand,
    weight_to_oihw,
)
from edgeq.ops.conv import emit_clamp, exact_matmul
from edgeq.ops.tflite_forms import bias_or_zeros, widened
from edgeq.ops.weighted import check_weighted, finish_channels


@dataclass(frozen=True, slots=True)
class ConvTransposeAttrs(Attrs):
    """Attributes of `conv_transpose`.

    Attributes:
        window: Kernel, strides, dilations; pads are what is cut from the output's borders.
        groups: Input channels are split into this many parts, each with its own filters.
        output_padding: Rows and columns added at the bottom and right of the output.
        clamp: Fused activation: real bounds of the output.
    """

    window: Window
    groups: int = 1
    output_padding: tuple[int, int] = (0, 0)
    clamp: Clamp = NO_CLAMP


def transposed_size(attrs: ConvTransposeAttrs, height: int, width: int, where: str) -> tuple[int, int]:
    """Returns (size - 1) * stride - pads + dilation * (kernel - 1) + 1 + output padding for both axes."""
    window, sizes = attrs.window, []
    for axis, size in enumerate((height, width)):
        span = window.dilations[axis] * (window.kernel[axis] - 1) + 1
        cut = window.pads[axis] + window.pads[axis + 2]
        sizes.append((size - 1) * window.strides[axis] + span - cut + attrs.output_padding[axis])
    if min(sizes) < 1:
        raise GraphError(f"{where}: padding {window.pads} leaves nothing of the output")
    return sizes[0], sizes[1]


def convolve_transposed(x: Array, w: Array, attrs: ConvTransposeAttrs, bound: int | None) -> Array:
    """Returns the raw sums of a transposed convolution, NCHW.

    Args:
        x: Input [n, c, h, w]; float, or integer-valued with its zero point already subtracted.
        w: Weights [o, c / groups, kh, kw].
        attrs: Window, groups, output padding.
        bound: For integers, a bound on every sum of magnitudes; None for plain float arithmetic.
    """
    n, channels, height, width = x.shape
    window, groups, outputs = attrs.window, attrs.groups, w.shape[0]
    (sh, sw), (dh, dw), (top, left, _, _) = window.strides, window.dilations, window.pads
    out_h, out_w = transposed_size(attrs, height, width, "conv_transpose")
    # Everything the taps touch, before the borders are cut; output padding may reach beyond it.
    full_h = max((height - 1) * sh + dh * (window.kernel[0] - 1) + 1, top + out_h)
    full_w = max((width - 1) * sw + dw * (window.kernel[1] - 1) + 1, left + out_w)
    columns = x.reshape(n, groups, channels // groups, height * width)
    filters = w.reshape(groups, outputs // groups, channels // groups, *window.kernel)
    dtype = x.dtype if bound is None else np.dtype(np.float32 if bound <= 1 << 24 else np.float64)
    full = np.zeros((n, outputs, full_h, full_w), dtype)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            tap = filters[:, :, :, i, j]
            part = np.matmul(tap, columns) if bound is None else exact_matmul(tap, columns, bound)
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            cols = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            full[:, :, rows, cols] += part.reshape(n, outputs, height, width)
    return full[:, :, top : top + out_h, left : left + out_w]


@register
class ConvTranspose(Operator):
    """y = clamp(conv_transpose(x, w) + bias). Inputs: x, w, optional bias.

    Weights are [O, I / groups, kh, kw] as those of `conv`; ONNX has [I, O / groups, kh, kw].
    """

    name = "conv_transpose"
    attrs_type = ConvTransposeAttrs
    onnx_types = ("ConvTranspose",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        attrs = attrs_of(node, ConvTransposeAttrs)
        n, c, h, w = nchw_shape(graph.tensor(node.inputs[0]), graph.layout, node)
        weights = graph.constant(node.inputs[1])
        if weights is None or weights.ndim != 4:
            raise GraphError(f"{node.name}: transposed convolution weights must be a constant of rank 4")
        o, ci, kh, kw = weight_to_oihw(weights, graph.layout).shape
        if (kh, kw) != attrs.window.kernel or ci * attrs.groups != c or o % attrs.groups:
            raise GraphError(
                f"{node.name}: weights [{o}, {ci}, {kh}, {kw}] with {attrs.groups} groups do not fit {c} channels"
            )
        if len(node.inputs) > 2 and node.inputs[2] and graph.tensor(node.inputs[2]).shape != (o,):
            raise GraphError(f"{node.name}: bias must have shape [{o}]")
        return [(shape_from_nchw(n, o, *transposed_size(attrs, h, w, node.name), graph.layout), "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        attrs = attrs_of(node, ConvTransposeAttrs)
        x, w = to_nchw(operand(values, 0), graph.layout), weight_to_oihw(operand(values, 1), graph.layout)
        y = convolve_transposed(x, w, attrs, None)
        if len(values) > 2 and values[2] is not None:
            y = y + values[2][:, None, None]
        return [from_nchw(np.clip(y, *attrs.clamp).astype(np.float32, copy=False), graph.layout)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        attrs, x, w = attrs_of(node, ConvTransposeAttrs), torch_operand(values, 0), torch_operand(values, 1)
        window, groups = attrs.window, attrs.groups
        outputs, inputs = w.shape[0] // groups, w.shape[1]
        # torch has the weights as ONNX does: [I, O / groups, kh, kw].
        turned = w.reshape(groups, outputs, inputs, *window.kernel).transpose(1, 2)
        full = torch.nn.functional.conv_transpose2d(
            x,
            turned.reshape(groups * inputs, outputs, *window.kernel),
            None,
            stride=window.strides,
            groups=groups,
            dilation=window.dilations,
        )
        (height, width), (top, left) = transposed_size(attrs, x.shape[2], x.shape[3], node.name), window.pads[:2]
        # Output padding may reach beyond what the taps touch; only the bias lies there.
        beyond = max(left + width - full.shape[3], 0), max(top + height - full.shape[2], 0)
        full = torch.nn.functional.pad(full, (0, beyond[0], 0, beyond[1]))
        y = full[:, :, top : top + height, left : left + width]
        if len(values) > 2 and values[2] is not None:
            y = y + values[2][:, None, None]
        return [torch_clamp(y, attrs.clamp)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return [self.finish(node, self.accumulate(node, values, graph), graph)]

    def finish(self, node: Node, acc: Array, graph: Graph) -> Array:
        """Returns the output codes of accumulators as `accumulate` gives them."""
        clamp = attrs_of(node, ConvTransposeAttrs).clamp
        return from_nchw(finish_channels(acc, node, graph, clamp, 1), graph.layout)

    def accumulate(self, node: Node, values: Sequence[Array | None], graph: Graph) -> Array:
        """Returns the exact accumulators, bias included, as int64 [n, o, out_h, out_w] (NCHW in either layout)."""
        quant = graph.quant(node.inputs[0])
        zero = int(quant.zero_point)
        centred = to_nchw(operand(values, 0), graph.layout).astype(np.float32) - np.float32(zero)
        w = weight_to_oihw(operand(values, 1), graph.layout)
        largest = max(quant.qmax - zero, zero - quant.qmin)
        bound = largest * int(np.abs(w.astype(np.int64)).sum(axis=(1, 2, 3)).max(initial=0))
        acc = convolve_transposed(centred, w, attrs_of(node, ConvTransposeAttrs), bound).astype(np.int64)
        bias = values[2] if len(values) > 2 else None
        return acc if bias is None else acc + bias.astype(np.int64)[:, None, None]

    def check_quant(self, node: Node, graph: Graph) -> None:
        check_weighted(node, graph)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        weights = source.require_constant(node, 1, "weights").astype(np.float32)
        x = source.graph.tensor(node.input[0])
        if weights.ndim != 4 or len(x.shape) != 4:
            raise source.fail(
                node,
                "only 1-D and 2-D convolution is supported, with one or two axes behind the channels of input and "
                f"weights alike; they have the shapes {list(x.shape)} and {list(weights.shape)}",
            )
        groups = int(source.attribute(node, "group", 1))
        inputs_, per_group, kh, kw = weights.shape
        if groups < 1 or inputs_ % groups:
            raise source.fail(node, f"{groups} groups do not divide {inputs_} channels")
        oihw = weights.reshape(groups, inputs_ // groups, per_group, kh, kw).transpose(0, 2, 1, 3, 4)
        oihw = oihw.reshape(groups * per_group, inputs_ // groups, kh, kw)
        name = source.name_of(node)
        inputs = [node.input[0], source.add_constant(f"{name}.weight", oihw)]
        if len(node.input) > 2 and node.input[2]:
            inputs.append(
                source.add_constant(f"{name}.bias", source.require_constant(node, 2, "bias").astype(np.float32))
            )
        attrs = _attrs_from_onnx(source, node, (kh, kw), groups, (x.shape[2], x.shape[3]))
        source.emit("conv_transpose", name, inputs, [node.output[0]], attrs)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs, weights = attrs_of(node, ConvTransposeAttrs), graph.constant(node.inputs[1])
        assert weights is not None
        o, ci, kh, kw = weights.shape
        g = attrs.groups
        iohw = weights.reshape(g, o // g, ci, kh, kw).transpose(0, 2, 1, 3, 4).reshape(g * ci, o // g, kh, kw)
        raw = node.outputs[0] if attrs.clamp == NO_CLAMP else sink.fresh(f"{node.outputs[0]}.preactivation")
        inputs = [node.inputs[0], sink.initializer(f"{node.name}.weight", np.ascontiguousarray(iohw))]
        inputs += [name for name in node.inputs[2:] if name]
        sink.emit(
            "ConvTranspose",
            inputs,
            [raw],
            node.name,
            kernel_shape=list(attrs.window.kernel),
            strides=list(attrs.window.strides),
            pads=list(attrs.window.pads),
            dilations=list(attrs.window.dilations),
            group=g,
            output_padding=list(attrs.output_padding),
        )
        emit_clamp(sink, attrs.clamp, raw, node.outputs[0], node.name)

    def macs(self, node: Node, graph: Graph) -> int:
        _, _, h, w = nchw_shape(graph.tensor(node.inputs[0]), graph.layout, node)
        return h * w * int(np.prod(graph.tensor(node.inputs[1]).shape))

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """TRANSPOSE_CONV to all that the taps touch, then the cut; groups and dilation become zeros in the filters."""
        attrs, quant = attrs_of(node, ConvTransposeAttrs), widened(sink, node, graph.quant(node.inputs[1]))
        y, source = graph.tensor(node.outputs[0]), graph.tensor(node.inputs[0])
        weights = graph.constant(node.inputs[1])
        assert weights is not None
        filters = _plain_filters(weights, attrs)
        size, cut = [], []
        for axis in range(2):
            first, stride, span = attrs.window.pads[axis], attrs.window.strides[axis], filters.shape[axis + 1]
            full = (source.shape[axis + 1] - 1) * stride + span
            size.append(max(full, first + y.shape[axis + 1]))
            cut.append(first)
        whole = (*size,) == y.shape[1:3]
        sink.fix_batch(node, "TRANSPOSE_CONV takes its output's shape as a constant")
        shape = (1, *size, y.shape[3])
        out = y.name if whole else sink.activation(f"{y.name}.uncut", (y.shape[0], *shape[1:]), y.quant)
        sink.emit(
            "TRANSPOSE_CONV",
            [
                sink.constant(f"{node.name}.shape", np.array(shape, np.int32)),
                sink.constant(f"{node.inputs[1]}.filters", filters, quant),
                source.name,
                bias_or_zeros(sink, node, graph, weights.shape[0]),
            ],
            [out],
            version=3 if attrs.clamp == NO_CLAMP else 4,
            clamp=attrs.clamp,
            padding="VALID",
            stride_h=attrs.window.strides[0],
            stride_w=attrs.window.strides[1],
        )
        if not whole:
            begin = sink.constant(f"{node.name}.begin", np.array([0, *cut, 0], np.int32))
            kept = sink.constant(f"{node.name}.kept", np.array([-1, *y.shape[1:]], np.int32))
            sink.emit("SLICE", [out, begin, kept], [y.name], version=2)


def _attrs_from_onnx(
    source: OnnxSource, node: Any, kernel: tuple[int, int], groups: int, size: tuple[int, int]
) -> ConvTransposeAttrs:
    strides = tuple(int(v) for v in source.attribute(node, "strides", [1, 1]))
    dilations = tuple(int(v) for v in source.attribute(node, "dilations", [1, 1]))
    extra = tuple(int(v) for v in source.attribute(node, "output_padding", [0, 0]))
    pads = [int(v) for v in source.attribute(node, "pads", [0, 0, 0, 0])]
    auto_pad = source.attribute(node, "auto_pad", b"NOTSET")
    auto_pad = auto_pad.decode() if isinstance(auto_pad, bytes) else auto_pad
    wanted = source.attribute(node, "output_shape", None)
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size[axis] * strides[axis] for axis in range(2)]
    if auto_pad == "VALID":
        pads = [0, 0, 0, 0]
    if wanted is not None:
        for axis in range(2):
            span = dilations[axis] * (kernel[axis] - 1) + 1
            total = strides[axis] * (size[axis] - 1) + extra[axis] + span - int(wanted[len(wanted) - 2 + axis])
            small, large = total // 2, total - total // 2
            pads[axis], pads[axis + 2] = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    if min(pads) < 0:
        raise source.fail(node, f"negative padding {pads} is not supported")
    window = Window(kernel, strides, tuple(pads), dilations)  # type: ignore[arg-type]
    return ConvTransposeAttrs(window, groups, extra)  # type: ignore[arg-type]


def _plain_filters(weights: Array, attrs: ConvTransposeAttrs) -> Array:
    """Returns filters [O, kh, kw, I] that do without groups and dilation what [O, kh, kw, I / groups] do with them."""
    outputs, kh, kw, per_group = weights.shape
    (dh, dw), groups = attrs.window.dilations, attrs.groups
    filters = np.zeros((outputs, dh * (kh - 1) + 1, dw * (kw - 1) + 1, per_group * groups), weights.dtype)
    for group in range(groups):
        rows = slice(group * (outputs // groups), (group + 1) * (outputs // groups))
        filters[rows, ::dh, ::dw, group * per_group : (group + 1) * per_group] = weights[rows]
    return filters
