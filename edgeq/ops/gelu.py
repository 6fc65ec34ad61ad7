"""Gaussian error linear unit (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TfliteSink, TorchTensor, attrs_of, register
from edgeq.ops.erf import erf
from edgeq.ops.unary import Unary


@dataclass(frozen=True, slots=True)
class GeluAttrs(Attrs):
    """Attributes of `gelu`.

    Attributes:
        tanh: Whether Phi is approximated as (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2.
    """

    tanh: bool = False


@register
class Gelu(Unary):
    """y = x * Phi(x), Phi being the normal distribution function or its tanh approximation."""

    name = "gelu"
    attrs_type = GeluAttrs
    onnx_types = ("Gelu",)

    def function(self, x: Array, node: Node) -> Array:
        kind = x.dtype.type
        if attrs_of(node, GeluAttrs).tanh:
            inner = kind(math.sqrt(2.0 / math.pi)) * (x + kind(0.044715) * x * x * x)
            return np.asarray(x * kind(0.5) * (1 + np.tanh(inner)))
        return np.asarray(x * kind(0.5) * (1 + erf(x * kind(math.sqrt(0.5)))))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        return torch.nn.functional.gelu(x, approximate="tanh" if attrs_of(node, GeluAttrs).tanh else "none")

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        form = source.attribute(node, "approximate", b"none")
        form = form.decode() if isinstance(form, bytes) else str(form)
        if form not in ("none", "tanh"):
            raise source.fail(node, f"approximate must be none or tanh, got {form!r}")
        self.emit_unary(source, node, GeluAttrs(tanh=form == "tanh"))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit(
            "Gelu",
            list(node.inputs),
            list(node.outputs),
            node.name,
            approximate="tanh" if attrs_of(node, GeluAttrs).tanh else "none",
        )

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        approximate = attrs_of(node, GeluAttrs).tanh
        sink.emit("GELU", list(node.inputs), list(node.outputs), approximate=approximate)
