"""Fully connected layer over the last axis."""

from __future__ import annotations

import math
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
    Int4Storage,
    OnnxSink,
    OnnxSource,
    Operator,
    Shape,
    TfliteSink,
    TorchTensor,
    Window,
    attrs_of,
    operand,
    register,
    torch_clamp,
    torch_operand,
)
from edgeq.ops.conv import emit_clamp, exact_matmul
from edgeq.ops.tflite_forms import bias_or_zeros, convolution_options, fully_connected, reshaped
from edgeq.ops.weighted import check_weighted, finish_channels


@dataclass(frozen=True, slots=True)
class LinearAttrs(Attrs):
    """Attributes of `linear`.

    Attributes:
        clamp: Fused activation: real bounds of the output.
    """

    clamp: Clamp = NO_CLAMP


@register
class Linear(Operator):
    """y = clamp(x @ w.T + bias). Inputs: x [N, ..., K], constant w [O, K], optional bias [O]."""

    name = "linear"
    attrs_type = LinearAttrs
    onnx_types = ("Gemm", "MatMul")

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        shape, weights = graph.tensor(node.inputs[0]).shape, graph.tensor(node.inputs[1])
        attrs_of(node, LinearAttrs)
        if weights.data is None or len(weights.shape) != 2:
            raise GraphError(f"{node.name}: linear weights must be a constant of rank 2")
        if len(shape) < 2 or shape[-1] != weights.shape[1]:
            raise GraphError(f"{node.name}: weights {list(weights.shape)} do not fit an input of shape {list(shape)}")
        if len(node.inputs) > 2 and node.inputs[2] and graph.tensor(node.inputs[2]).shape != weights.shape[:1]:
            raise GraphError(f"{node.name}: bias must have shape [{weights.shape[0]}]")
        return [((*shape[:-1], weights.shape[0]), "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        y = np.matmul(operand(values, 0), operand(values, 1).T)
        if len(values) > 2 and values[2] is not None:
            y = y + values[2]
        low, high = attrs_of(node, LinearAttrs).clamp
        return [np.clip(y, low, high).astype(np.float32, copy=False)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        bias = values[2] if len(values) > 2 else None
        y = torch.nn.functional.linear(torch_operand(values, 0), torch_operand(values, 1), bias)
        return [torch_clamp(y, attrs_of(node, LinearAttrs).clamp)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return [self.finish(node, self.accumulate(node, values, graph), graph)]

    def finish(self, node: Node, acc: Array, graph: Graph) -> Array:
        """Returns the output codes of accumulators as `accumulate` gives them."""
        return finish_channels(acc, node, graph, attrs_of(node, LinearAttrs).clamp, acc.ndim - 1)

    def accumulate(self, node: Node, values: Sequence[Array | None], graph: Graph) -> Array:
        """Returns the exact accumulators, bias included, as int64 [N, ..., O]."""
        w, quant = operand(values, 1), graph.quant(node.inputs[0])
        zero = int(quant.zero_point)
        largest = max(quant.qmax - zero, zero - quant.qmin)
        bound = largest * int(np.abs(w.astype(np.int64)).sum(axis=1).max(initial=0))
        centred = operand(values, 0).astype(np.float32) - np.float32(zero)
        acc = exact_matmul(centred, w.T, bound).astype(np.int64)
        bias = values[2] if len(values) > 2 else None
        return acc if bias is None else acc + bias.astype(np.int64)

    def check_quant(self, node: Node, graph: Graph) -> None:
        check_weighted(node, graph)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        name = source.name_of(node)
        weights = source.require_constant(node, 1, "weights (the second factor)").astype(np.float32)
        x = source.graph.tensor(node.input[0])
        if weights.ndim != 2:
            raise source.fail(node, f"the constant factor must be a matrix, it has shape {list(weights.shape)}")
        bias: Array | None = None
        if node.op_type == "Gemm":
            if source.attribute(node, "transA", 0):
                raise source.fail(node, "transA would move the batch axis")
            if not source.attribute(node, "transB", 0):
                weights = weights.T
            weights = weights * np.float32(source.attribute(node, "alpha", 1.0))
            if len(node.input) > 2 and node.input[2]:
                bias = source.require_constant(node, 2, "bias") * np.float32(source.attribute(node, "beta", 1.0))
                if bias.size not in (1, weights.shape[0]) or (bias.size > 1 and bias.shape[-1] != bias.size):
                    raise source.fail(node, f"bias {list(bias.shape)} must have one value an output")
                bias = np.broadcast_to(bias.reshape(-1), (weights.shape[0],))
        else:
            weights = weights.T
        if len(x.shape) < 2:
            raise source.fail(node, f"the input must have a batch axis, its shape is {list(x.shape)}")
        inputs = [node.input[0], source.add_constant(f"{name}.weight", weights)]
        if bias is not None:
            inputs.append(source.add_constant(f"{name}.bias", bias.astype(np.float32)))
        source.emit("linear", name, inputs, [node.output[0]], LinearAttrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        clamp = attrs_of(node, LinearAttrs).clamp
        raw = node.outputs[0] if clamp == NO_CLAMP else sink.fresh(f"{node.outputs[0]}.preactivation")
        if len(graph.tensor(node.inputs[0]).shape) == 2:
            sink.emit("Gemm", [name for name in node.inputs if name], [raw], node.name, transB=1)
        else:
            turned = sink.fresh(f"{node.inputs[1]}.transposed")
            sink.emit("Transpose", [node.inputs[1]], [turned], f"{node.name}.transpose", perm=[1, 0])
            has_bias = len(node.inputs) > 2 and node.inputs[2]
            product = sink.fresh(f"{node.outputs[0]}.product") if has_bias else raw
            sink.emit("MatMul", [node.inputs[0], turned], [product], node.name)
            if has_bias:
                sink.emit("Add", [product, node.inputs[2]], [raw], f"{node.name}.bias")
        emit_clamp(sink, clamp, raw, node.outputs[0], node.name)

    def macs(self, node: Node, graph: Graph) -> int:
        rows = int(np.prod(graph.tensor(node.inputs[0]).shape[1:-1]))
        return rows * int(np.prod(graph.tensor(node.inputs[1]).shape))

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        clamp, weights = attrs_of(node, LinearAttrs).clamp, graph.constant(node.inputs[1])
        assert weights is not None
        if graph.quant(node.inputs[1]).bits == 8 or sink.int4 is not Int4Storage.OLD:
            fully_connected(sink, node, graph, node.inputs[0], weights, clamp)
            return
        # The old runtime takes 4-bit weights with a scale a channel in convolutions only.
        x, y = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
        image = (x.shape[0], math.prod(x.shape[1:-1]), 1)
        before = sink.activation(f"{y.name}.image", (*image, x.shape[-1]), x.quant)
        after = sink.activation(f"{y.name}.pixels", (*image, y.shape[-1]), y.quant)
        filters = sink.constant(f"{node.inputs[1]}.filters", weights[:, None, None], graph.quant(node.inputs[1]))
        reshaped(sink, x.name, before)
        sink.emit(
            "CONV_2D",
            [before, filters, bias_or_zeros(sink, node, graph, weights.shape[0])],
            [after],
            version=7,
            clamp=clamp,
            **convolution_options(Window((1, 1)), "VALID"),
        )
        reshaped(sink, after, y.name)
