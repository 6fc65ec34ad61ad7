"""Leaky rectified linear unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TfliteSink, TorchTensor, attrs_of, register
from edgeq.ops.unary import Unary


@dataclass(frozen=True, slots=True)
class LeakyReluAttrs(Attrs):
    """Attributes of `leaky_relu`.

    Attributes:
        alpha: Slope below zero.
    """

    alpha: float = 0.01


@register
class LeakyRelu(Unary):
    """y = x where x >= 0, else alpha * x."""

    name = "leaky_relu"
    attrs_type = LeakyReluAttrs
    onnx_types = ("LeakyRelu",)

    def function(self, x: Array, node: Node) -> Array:
        return np.where(x >= 0, x, x * x.dtype.type(attrs_of(node, LeakyReluAttrs).alpha))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        return torch.nn.functional.leaky_relu(x, attrs_of(node, LeakyReluAttrs).alpha)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, LeakyReluAttrs(float(source.attribute(node, "alpha", 0.01))))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit(
            "LeakyRelu",
            list(node.inputs),
            list(node.outputs),
            node.name,
            alpha=attrs_of(node, LeakyReluAttrs).alpha,
        )

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        sink.emit("LEAKY_RELU", list(node.inputs), list(node.outputs), alpha=attrs_of(node, LeakyReluAttrs).alpha)
