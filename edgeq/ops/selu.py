"""Scaled exponential linear unit (Klambauer et al. 2017, arXiv 1706.02515)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TorchTensor, attrs_of, register
from edgeq.ops.unary import Unary


@dataclass(frozen=True, slots=True)
class SeluAttrs(Attrs):
    """Attributes of `selu`; the defaults are the paper's, as float32 values.

    Attributes:
        alpha: As in `elu`.
        gamma: Factor of the whole.
    """

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875


@register
class Selu(Unary):
    """y = gamma * x where x > 0, else gamma * alpha * (exp(x) - 1)."""

    name = "selu"
    attrs_type = SeluAttrs
    onnx_types = ("Selu",)

    def function(self, x: Array, node: Node) -> Array:
        attrs, kind = attrs_of(node, SeluAttrs), x.dtype.type
        return np.asarray(kind(attrs.gamma) * np.where(x > 0, x, kind(attrs.alpha) * np.expm1(np.minimum(x, 0))))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        attrs = attrs_of(node, SeluAttrs)
        return torch.nn.functional.elu(x, attrs.alpha) * attrs.gamma

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        default = SeluAttrs()
        attrs = SeluAttrs(
            float(source.attribute(node, "alpha", default.alpha)), float(source.attribute(node, "gamma", default.gamma))
        )
        self.emit_unary(source, node, attrs)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs = attrs_of(node, SeluAttrs)
        sink.emit("Selu", list(node.inputs), list(node.outputs), node.name, alpha=attrs.alpha, gamma=attrs.gamma)
