"""Parametric rectified linear unit: a constant slope below zero, one or one a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    OnnxSource,
    Shape,
    TfliteSink,
    TorchTensor,
    channel_axis,
    operand,
    quantize,
    register,
    torch_operand,
)
from edgeq.ops.unary import Unary, unary_table


@register
class PRelu(Unary):
    """y = x where x >= 0, else slope[c] * x. Inputs: x, slope: a float32 constant of shape [1] or [channels].

    The slope stays float32 in a quantized graph: it only shapes the table.
    """

    name = "prelu"
    onnx_types = ("PRelu",)

    def function(self, x: Array, node: Node) -> Array:
        raise GraphError(f"{node.name}: prelu is a function of two inputs")

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        raise GraphError(f"{node.name}: prelu is a function of two inputs")

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        shape, slope = graph.tensor(node.inputs[0]).shape, _slope(node, graph)
        channels = shape[channel_axis(len(shape), graph.layout)]
        if slope.shape != (1,) and (slope.shape != (channels,) or len(shape) not in (2, 4)):
            raise GraphError(
                f"{node.name}: slope {list(slope.shape)} must have one value, or one for each of the {channels} "
                "channels of a rank-2 or rank-4 input"
            )
        return [(shape, "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        x, slope = operand(values, 0), operand(values, 1).astype(np.float32)
        axis = channel_axis(x.ndim, graph.layout)
        return [np.where(x >= 0, x, x * slope.reshape([-1 if i == axis else 1 for i in range(x.ndim)]))]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        x, slope = torch_operand(values, 0), torch_operand(values, 1)
        return [x.where(x >= 0, x * slope.reshape(1, -1, *[1] * (x.ndim - 2)))]

    def table(self, node: Node, graph: Graph) -> npt.NDArray[np.int8]:
        slope = _slope(node, graph).astype(np.float64)
        rows = slope[0] if slope.size == 1 else slope[:, None]
        return unary_table(
            lambda x: np.where(x >= 0, x, x * rows), graph.quant(node.inputs[0]), graph.quant(node.outputs[0])
        )

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        slope = source.require_constant(node, 1, "slope").astype(np.float32)
        rank = len(source.graph.tensor(node.input[0]).shape)
        full = slope.reshape((1,) * (rank - slope.ndim) + slope.shape) if slope.ndim <= rank else slope
        if slope.size != 1 and (full.ndim != rank or full.size != full.shape[1]):
            raise source.fail(node, f"the slope {list(slope.shape)} must have one value, or one a channel")
        name = source.name_of(node)
        inputs = [node.input[0], source.add_constant(f"{name}.slope", slope.reshape(-1))]
        source.emit("prelu", name, inputs, [node.output[0]], Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        slope = _slope(node, graph)
        rank = len(graph.tensor(node.inputs[0]).shape)
        name = sink.initializer(f"{node.name}.slope", slope.reshape((-1,) + (1,) * (rank - 2)))
        sink.emit("PRelu", [node.inputs[0], name], list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """The builtin, its slopes as int8: their rounding moves a result by half a step at most."""
        slope = _slope(node, graph)
        largest = float(np.abs(slope).max())
        quant = QuantParams.per_tensor(largest / 127 if largest else 1.0, 0)
        alpha = sink.constant(f"{node.name}.slope", quantize(slope, quant), quant)
        sink.emit("PRELU", [node.inputs[0], alpha], list(node.outputs))


def _slope(node: Node, graph: Graph) -> Array:
    slope = graph.constant(node.inputs[1])
    if slope is None:
        raise GraphError(f"{node.name}: the slope of prelu must be constant")
    return slope
