"""Batch normalisation at inference: an affine map a channel. Float only; `passes.fold_batchnorm` removes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    OnnxSource,
    Operator,
    Shape,
    TorchTensor,
    channel_axis,
    operand,
    register,
    torch_operand,
)


@register
class BatchNorm(Operator):
    """y = x * scale[c] + shift[c]. Inputs: x, constant scale [C], constant shift [C], in float32.

    The importer has already combined gamma, beta, mean, variance and epsilon, in float64.
    """

    name = "batch_norm"
    onnx_types = ("BatchNormalization",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        shape = graph.tensor(node.inputs[0]).shape
        channels = (shape[channel_axis(len(shape), graph.layout)],) if len(shape) >= 2 else ()
        for name in node.inputs[1:]:
            if graph.constant(name) is None or graph.tensor(name).shape != channels:
                raise GraphError(f"{node.name}: scale and shift must be constants of shape {list(channels)}")
        return [(shape, "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        x, scale, shift = (operand(values, i) for i in range(3))
        axis = channel_axis(x.ndim, graph.layout)
        form = [-1 if i == axis else 1 for i in range(x.ndim)]
        return [(x * scale.reshape(form) + shift.reshape(form)).astype(np.float32, copy=False)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        x, scale, shift = (torch_operand(values, i) for i in range(3))
        form = (1, -1, *[1] * (x.ndim - 2))
        return [x * scale.reshape(form) + shift.reshape(form)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        raise GraphError(f"{node.name}: batch_norm has no integer meaning; run edgeq.passes.float_pipeline first")

    def check_quant(self, node: Node, graph: Graph) -> None:
        raise GraphError(
            f"{node.name}: a quantized graph cannot hold batch_norm; run edgeq.passes.float_pipeline first"
        )

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        if source.attribute(node, "training_mode", 0):
            raise source.fail(node, "it is in training mode; export the model in evaluation mode")
        meanings = ("scale", "bias", "mean", "variance")
        gamma, beta, mean, variance = (
            source.require_constant(node, i + 1, meaning).astype(np.float64).reshape(-1)
            for i, meaning in enumerate(meanings)
        )
        spread = variance + float(source.attribute(node, "epsilon", 1e-5))
        if np.any(spread <= 0) or not np.all(np.isfinite(spread)):
            raise source.fail(node, "its variance plus epsilon is not positive and finite everywhere")
        factor = gamma / np.sqrt(spread)
        name = source.name_of(node)
        inputs = [
            node.input[0],
            source.add_constant(f"{name}.scale", factor.astype(np.float32)),
            source.add_constant(f"{name}.shift", (beta - mean * factor).astype(np.float32)),
        ]
        source.emit("batch_norm", name, inputs, [node.output[0]], Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        form = (-1,) + (1,) * (len(graph.tensor(node.inputs[0]).shape) - 2)
        names = []
        for stem, source in zip(("scale", "shift"), node.inputs[1:], strict=False):
            value = graph.constant(source)
            assert value is not None
            names.append(sink.initializer(f"{node.name}.{stem}", value.reshape(form)))
        scaled = sink.fresh(f"{node.outputs[0]}.scaled")
        sink.emit("Mul", [node.inputs[0], names[0]], [scaled], f"{node.name}.mul")
        sink.emit("Add", [scaled, names[1]], list(node.outputs), node.name)
