"""What several TFLite rows share: windows and their padding, biases, tables, changes of quantization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.ir import BATCH, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import Clamp, Int4Storage, TfliteSink, Window, channel_axis


def windowed_input(
    sink: TfliteSink, node: Node, window: Window, outputs: Sequence[int], border: int
) -> tuple[str, str]:
    """Returns (input tensor, padding) with which a TFLite window operator sees what the node's window sees.

    TFLite pads by VALID (none) or SAME (the output's size is input size / stride, rounded up; the smaller half of
    the padding comes first). Only the padding before the image and the output's size matter: what lies behind the
    last window does not. Where neither fits, a PAD comes before a VALID window.

    Args:
        sink: Where rows write to.
        node: Its first input is an NHWC image.
        window: Of the node.
        outputs: Height and width of the output.
        border: Code that the border holds.
    """
    name = node.inputs[0]
    shape = sink.tensor(name).shape
    before, after, same, valid = [], [], True, True
    for axis in range(2):
        size, stride, first = shape[axis + 1], window.strides[axis], window.pads[axis]
        span = window.dilations[axis] * (window.kernel[axis] - 1) + 1
        needed = (outputs[axis] - 1) * stride + span - size
        same &= outputs[axis] == -(-size // stride) and first == max(needed, 0) // 2
        valid &= first == 0 and size >= span and (size - span) // stride + 1 == outputs[axis]
        before.append(first)
        after.append(max(needed - first, 0))
    if valid:
        return name, "VALID"
    if same:
        return name, "SAME"
    return pad(sink, f"{node.outputs[0]}.padded", name, (0, *before, 0), (0, *after, 0), border), "VALID"


def pool_options(window: Window, padding: str) -> dict[str, Any]:
    """Returns the options of a pooling operator."""
    return {
        "padding": padding,
        "stride_h": window.strides[0],
        "stride_w": window.strides[1],
        "filter_height": window.kernel[0],
        "filter_width": window.kernel[1],
        "fused_activation_function": "NONE",
    }


def pad(
    sink: TfliteSink,
    out: str,
    x: str,
    before: tuple[int, ...],
    after: tuple[int, ...],
    border: int,
    *,
    existing: bool = False,
) -> str:
    """Emits PAD, or PADV2 where the border is not the code of zero; returns the output.

    Args:
        sink: Where rows write to.
        out: Name of the output: of a tensor of the graph if `existing`, else the stem of a new one.
        x: The input.
        before: Elements added before each axis.
        after: Elements added behind each axis.
        border: Code that they hold.
        existing: Whether `out` is there already.
    """
    tensor = sink.tensor(x)
    assert tensor.quant is not None
    if not existing:
        sizes = zip(tensor.shape, before, after, strict=True)
        out = sink.activation(out, [BATCH if s == BATCH else s + b + a for s, b, a in sizes], tensor.quant)
    amounts = sink.constant(f"{out}.amounts", np.array([before, after], np.int32).T)
    version = 4 if len(tensor.shape) > 4 else 2
    if border == int(tensor.quant.zero_point):
        sink.emit("PAD", [x, amounts], [out], version=version)
    else:
        value = sink.constant(f"{out}.border", np.array(border, np.int8), tensor.quant)
        sink.emit("PADV2", [x, amounts, value], [out], version=version)
    return out


def bias_or_zeros(sink: TfliteSink, node: Node, graph: Graph, channels: int) -> str:
    """Returns the node's bias, or zeros: XNNPACK wants one, and every runtime takes it."""
    if len(node.inputs) > 2 and node.inputs[2]:
        return node.inputs[2]
    weights = graph.quant(node.inputs[1])
    scale = np.float32(graph.quant(node.inputs[0]).scale) * weights.scale
    quant = QuantParams(scale, np.zeros_like(scale, np.int32), 32, weights.axis)
    return sink.constant(f"{node.name}.bias", np.zeros(channels, np.int32), quant)


def widened(sink: TfliteSink, node: Node, quant: QuantParams) -> QuantParams:
    """Returns the parameters of weights that a file stores as int8; 4-bit ones are recorded as such."""
    if quant.bits == 8:
        return quant
    sink.widen(node)
    return replace(quant, bits=8)


def table_lookup(sink: TfliteSink, node: Node, table: npt.NDArray[np.int8]) -> None:
    """Emits any function of one int8 tensor, exactly: CAST to int32, ADD 128, GATHER from its table of codes.

    Args:
        sink: Where rows write to.
        node: Reads and writes tensors of one shape.
        table: Shape (256,), or (channels, 256) over the last axis.
    """
    x, y = sink.tensor(node.inputs[0]), node.outputs[0]
    offset: Array = np.full((1,), 128, np.int32)
    if table.ndim == 2:
        assert channel_axis(len(x.shape), "nhwc") == len(x.shape) - 1
        offset = 128 + 256 * np.arange(table.shape[0], dtype=np.int32)
    wide = sink.activation(f"{y}.code", x.shape, None, "int32")
    index = sink.activation(f"{y}.index", x.shape, None, "int32")
    sink.emit("CAST", [x.name], [wide], version=1, in_data_type="INT8", out_data_type="INT32")
    sink.emit("ADD", [wide, sink.constant(f"{node.name}.offset", offset)], [index], fused_activation_function="NONE")
    values = sink.constant(f"{node.name}.table", table.reshape(-1), sink.tensor(y).quant)
    sink.emit("GATHER", [values, index], [y], version=2, axis=0, batch_dims=0)


def requantized(sink: TfliteSink, x: str, y: str) -> None:
    """Emits QUANTIZE from one int8 tensor to another."""
    sink.emit("QUANTIZE", [x], [y])


def strided_slice(sink: TfliteSink, x: str, y: str, begin: Sequence[int], stride: Sequence[int]) -> None:
    """Emits STRIDED_SLICE: y[i] = x[begin + i * stride], as many as `y` holds; the first axis whole."""
    shape = sink.tensor(y).shape
    ends = [first + (size - 1) * step + 1 for first, size, step in zip(begin, shape, stride, strict=True)]
    ends[0] = 0
    operands = [
        sink.constant(f"{y}.{part}", np.array(values, np.int32))
        for part, values in (("begin", begin), ("end", ends), ("stride", stride))
    ]
    # Bit 0 of the masks: the batch from beginning to end.
    version = 4 if len(shape) > 4 else 2
    sink.emit("STRIDED_SLICE", [x, *operands], [y], version=version, begin_mask=1, end_mask=1)


def transposed(sink: TfliteSink, x: str, y: str, permutation: Sequence[int]) -> None:
    """Emits TRANSPOSE: axis i of `y` is axis permutation[i] of `x`."""
    axes = sink.constant(f"{y}.permutation", np.array(permutation, np.int32))
    real = sink.tensor(x).dtype == "float32"
    rank = len(permutation)
    sink.emit("TRANSPOSE", [x, axes], [y], version=6 if rank > 5 else 4 if rank > 4 else 1 if real else 2)


def reshaped(sink: TfliteSink, x: str, y: str) -> None:
    """Emits RESHAPE to the shape of `y`, whose batch stays free."""
    shape = np.array(sink.tensor(y).shape, np.int32)
    sink.emit("RESHAPE", [x, sink.constant(f"{y}.shape", shape)], [y], new_shape=shape.tolist())


def packs_linear(int4: Int4Storage, inputs: int) -> bool:
    """Whether a fully connected layer of that many inputs stores its 4-bit weights packed."""
    return int4 is Int4Storage.PACKED or (int4 is Int4Storage.FAST and inputs % 2 == 0)


def fully_connected(sink: TfliteSink, node: Node, graph: Graph, x: str, weights: Array, clamp: Clamp) -> None:
    """Emits FULLY_CONNECTED over the last axis of `x`, every other axis kept.

    Args:
        sink: Where rows write to.
        node: Its weights' quantization, bias and output are used.
        graph: Holds the node.
        x: The input, as the file has it.
        weights: Codes, shape (outputs, inputs).
        clamp: Fused activation.
    """
    quant = graph.quant(node.inputs[1])
    if not packs_linear(sink.int4, weights.shape[1]):
        quant = widened(sink, node, quant)
    keep = len(sink.tensor(x).shape) > 2
    sink.emit(
        "FULLY_CONNECTED",
        [
            x,
            sink.constant(f"{node.inputs[1]}.matrix", weights, quant),
            bias_or_zeros(sink, node, graph, weights.shape[0]),
        ],
        [node.outputs[0]],
        version=10 if quant.bits == 4 else 5 if keep else 4,
        clamp=clamp,
        keep_num_dims=keep,
    )


def convolution_options(window: Window, padding: str) -> dict[str, Any]:
    """Returns the options of CONV_2D and DEPTHWISE_CONV_2D, but for the depth multiplier."""
    return {
        "padding": padding,
        "stride_h": window.strides[0],
        "stride_w": window.strides[1],
        "dilation_h_factor": window.dilations[0],
        "dilation_w_factor": window.dilations[1],
    }
