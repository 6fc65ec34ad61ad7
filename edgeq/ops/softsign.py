"""Softsign (Bergstra et al. 2009, "Quadratic polynomials learn better image features")."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TorchTensor, register
from edgeq.ops.unary import Unary


@register
class Softsign(Unary):
    """y = x / (1 + |x|)."""

    name = "softsign"
    onnx_types = ("Softsign",)

    def function(self, x: Array, node: Node) -> Array:
        return np.asarray(x / (1 + np.abs(x)))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        return torch.nn.functional.softsign(x)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Softsign", list(node.inputs), list(node.outputs), node.name)
