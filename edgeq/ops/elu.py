"""Exponential linear unit (Clevert et al. 2015, arXiv 1511.07289)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TfliteSink, TorchTensor, attrs_of, register
from edgeq.ops.unary import Unary, unary_steps


@dataclass(frozen=True, slots=True)
class EluAttrs(Attrs):
    """Attributes of `elu`.

    Attributes:
        alpha: What the function tends to far below zero, negated.
    """

    alpha: float = 1.0


@register
class Elu(Unary):
    """y = x where x > 0, else alpha * (exp(x) - 1)."""

    name = "elu"
    attrs_type = EluAttrs
    onnx_types = ("Elu",)

    def function(self, x: Array, node: Node) -> Array:
        return np.where(x > 0, x, x.dtype.type(attrs_of(node, EluAttrs).alpha) * np.expm1(np.minimum(x, 0)))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        return torch.nn.functional.elu(x, attrs_of(node, EluAttrs).alpha)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, EluAttrs(float(source.attribute(node, "alpha", 1.0))))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Elu", list(node.inputs), list(node.outputs), node.name, alpha=attrs_of(node, EluAttrs).alpha)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """The builtin, which has alpha = 1, where no value lies at a tie; else the table.

        Runtimes make a table of their own of it, in float32 and some with ties away from zero. Within the codes a
        float32 value is off by a few of its last bits, so by less than 1e-4 of a step.
        """
        steps = unary_steps(lambda x: self.function(x, node), graph.quant(node.inputs[0]), graph.quant(node.outputs[0]))
        inside = steps[(steps > -256) & (steps < 256)]
        tied = np.any(np.abs(inside - np.floor(inside) - 0.5) < 1e-4)
        if attrs_of(node, EluAttrs).alpha != 1.0 or tied:
            super().to_tflite(sink, node, graph)
        else:
            sink.emit("ELU", list(node.inputs), list(node.outputs))
