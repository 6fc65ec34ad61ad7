"""Continuously differentiable exponential linear unit (Barron 2017, arXiv 1704.07483)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TorchTensor, attrs_of, register
from edgeq.ops.unary import Unary


@dataclass(frozen=True, slots=True)
class CeluAttrs(Attrs):
    """Attributes of `celu`.

    Attributes:
        alpha: Positive; what the function tends to far below zero, negated.
    """

    alpha: float = 1.0


@register
class Celu(Unary):
    """y = x where x > 0, else alpha * (exp(x / alpha) - 1)."""

    name = "celu"
    attrs_type = CeluAttrs
    onnx_types = ("Celu",)

    def function(self, x: Array, node: Node) -> Array:
        alpha = x.dtype.type(attrs_of(node, CeluAttrs).alpha)
        return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        return torch.nn.functional.celu(x, attrs_of(node, CeluAttrs).alpha)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        alpha = float(source.attribute(node, "alpha", 1.0))
        if not alpha > 0:
            raise source.fail(node, f"alpha must be positive, got {alpha:g}")
        self.emit_unary(source, node, CeluAttrs(alpha))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Celu", list(node.inputs), list(node.outputs), node.name, alpha=attrs_of(node, CeluAttrs).alpha)
