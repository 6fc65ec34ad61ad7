"""Mean over height and width (global average pooling)."""

from __future__ import annotations

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
    Shape,
    TfliteSink,
    TorchTensor,
    attrs_of,
    from_nchw,
    nchw_shape,
    operand,
    register,
    requantize,
    shape_from_nchw,
    to_nchw,
    torch_operand,
)
from edgeq.ops.pooling import reduced_axes


@dataclass(frozen=True, slots=True)
class MeanAttrs(Attrs):
    """Attributes of `mean`.

    Attributes:
        keep_dims: Whether height and width stay as 1; else the output is [N, C].
    """

    keep_dims: bool = True


@register
class Mean(Operator):
    """y[n, c] = mean over height and width."""

    name = "mean"
    attrs_type = MeanAttrs
    onnx_types = ("GlobalAveragePool", "ReduceMean")

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        n, c, _, _ = nchw_shape(graph.tensor(node.inputs[0]), graph.layout, node)
        keep = attrs_of(node, MeanAttrs).keep_dims
        return [(shape_from_nchw(n, c, 1, 1, graph.layout) if keep else (n, c), "float32")]

    def _shaped(self, node: Node, y: Array, graph: Graph) -> Array:
        return from_nchw(y[:, :, None, None], graph.layout) if attrs_of(node, MeanAttrs).keep_dims else y

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        mean = to_nchw(operand(values, 0), graph.layout).mean(axis=(2, 3), dtype=np.float64)
        return [self._shaped(node, mean.astype(np.float32), graph)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        return [torch_operand(values, 0).mean((2, 3), keepdim=attrs_of(node, MeanAttrs).keep_dims)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        x = to_nchw(operand(values, 0), graph.layout)
        quant, out = graph.quant(node.inputs[0]), graph.quant(node.outputs[0])
        count = x.shape[2] * x.shape[3]
        acc = x.sum(axis=(2, 3), dtype=np.int64) - count * int(quant.zero_point)
        multiplier = (np.float32(quant.scale) / np.float32(out.scale)) / np.float32(count)
        return [self._shaped(node, requantize(acc, multiplier, int(out.zero_point), out.qmin, out.qmax), graph)]

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        shape, keep = source.graph.tensor(node.input[0]).shape, True
        if node.op_type == "ReduceMean":
            found = reduced_axes(source, node)
            if len(shape) != 4 or found != [2, 3]:
                raise source.fail(
                    node,
                    f"only the mean over height and width is supported, got axes {found} of {list(shape)}",
                )
            keep = bool(source.attribute(node, "keepdims", 1))
        source.emit("mean", source.name_of(node), [node.input[0]], [node.output[0]], MeanAttrs(keep))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        if attrs_of(node, MeanAttrs).keep_dims:
            sink.emit("GlobalAveragePool", list(node.inputs), list(node.outputs), node.name)
        else:
            pooled = sink.fresh(f"{node.outputs[0]}.pooled")
            sink.emit("GlobalAveragePool", list(node.inputs), [pooled], f"{node.name}.pool")
            sink.emit("Flatten", [pooled], list(node.outputs), node.name, axis=1)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        axes = sink.constant("height and width", np.array([1, 2], np.int32))
        keep = attrs_of(node, MeanAttrs).keep_dims
        sink.emit("MEAN", [node.inputs[0], axes], list(node.outputs), version=2, keep_dims=keep)
