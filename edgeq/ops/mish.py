"""Mish (Misra 2019, arXiv 1908.08681)."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TorchTensor, register
from edgeq.ops.unary import Unary


@register
class Mish(Unary):
    """y = x * tanh(log(1 + exp(x)))."""

    name = "mish"
    onnx_types = ("Mish",)

    def function(self, x: Array, node: Node) -> Array:
        # With u = exp(x), tanh(log(1 + u)) = (u^2 + 2 u) / (u^2 + 2 u + 2). Above zero both are divided by u^2, so that
        # no power is larger than 1.
        decay = np.exp(-np.abs(x))
        square = decay * decay
        above = np.where(x >= 0, 1 + 2 * decay, square + 2 * decay)
        return np.asarray(x * (above / (above + np.where(x >= 0, 2 * square, x.dtype.type(2)))))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        return torch.nn.functional.mish(x)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        """In parts: ONNX has Mish since opset 18, the files declare 17 where they can."""
        soft, gate = (sink.fresh(f"{node.outputs[0]}.{part}") for part in ("soft", "gate"))
        sink.emit("Softplus", list(node.inputs), [soft], f"{node.name}.soft")
        sink.emit("Tanh", [soft], [gate], f"{node.name}.gate")
        sink.emit("Mul", [node.inputs[0], gate], list(node.outputs), node.name)
