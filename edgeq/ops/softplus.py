"""Softplus (Dugas et al. 2000, "Incorporating second-order functional knowledge for better option pricing")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TorchTensor, attrs_of, register
from edgeq.ops.unary import Unary

INVISIBLE_THRESHOLD = 15.0
"""From here on log(1 + exp(t)) - t, at most 3.1e-7, is less than half a step of float32 at t (4.8e-7)."""
_TORCH_THRESHOLD = 20.0
"""Torch's own default, without which it overflows."""


@dataclass(frozen=True, slots=True)
class SoftplusAttrs(Attrs):
    """Attributes of `softplus`.

    Attributes:
        beta: Factor inside the function, divided by outside; not 0.
        threshold: Where beta * x is larger, the function is x.
    """

    beta: float = 1.0
    threshold: float = math.inf


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow, in the dtype of x."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


@register
class Softplus(Unary):
    """y = log(1 + exp(beta * x)) / beta, or x where beta * x > threshold."""

    name = "softplus"
    attrs_type = SoftplusAttrs
    onnx_types = ("Softplus",)

    def function(self, x: Array, node: Node) -> Array:
        attrs = attrs_of(node, SoftplusAttrs)
        beta = x.dtype.type(attrs.beta)
        return np.where(x * beta > attrs.threshold, x, softplus(x * beta) / beta)

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        attrs = attrs_of(node, SoftplusAttrs)
        return torch.nn.functional.softplus(x, attrs.beta, min(attrs.threshold, _TORCH_THRESHOLD))

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        """ONNX has neither attribute: `join_activations` gives them to nodes that it made of several."""
        beta = float(source.attribute(node, "beta", 1.0))
        threshold = float(source.attribute(node, "threshold", math.inf))
        if beta == 0 or not math.isfinite(beta):
            raise source.fail(node, f"beta must be finite and not zero, got {beta:g}")
        self.emit_unary(source, node, SoftplusAttrs(beta, threshold if threshold < INVISIBLE_THRESHOLD else math.inf))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        """As torch writes it, so that it is read again as one operator."""
        attrs, x, y = attrs_of(node, SoftplusAttrs), node.inputs[0], node.outputs[0]
        linear = math.isfinite(attrs.threshold)
        scaled, smooth = x, sink.fresh(f"{y}.smooth") if linear else y
        if attrs.beta == 1.0:
            sink.emit("Softplus", [x], [smooth], node.name)
        else:
            scaled, soft = sink.fresh(f"{y}.scaled"), sink.fresh(f"{y}.soft")
            beta = sink.initializer(f"{node.name}.beta", np.asarray(attrs.beta, np.float32))
            sink.emit("Mul", [x, beta], [scaled], f"{node.name}.scale")
            sink.emit("Softplus", [scaled], [soft], node.name)
            sink.emit("Div", [soft, beta], [smooth], f"{node.name}.unscale")
        if linear:
            beyond = sink.fresh(f"{y}.beyond")
            threshold = sink.initializer(f"{node.name}.threshold", np.asarray(attrs.threshold, np.float32))
            sink.emit("Greater", [scaled, threshold], [beyond], f"{node.name}.compare")
            sink.emit("Where", [beyond, x, smooth], [y], f"{node.name}.choose")
