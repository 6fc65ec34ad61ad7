"""Error function: a part of GELU as many exporters write it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TorchTensor, register
from edgeq.ops.unary import Unary

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The error function, elementwise, in the dtype of x."""
    return np.asarray(_erf(x.astype(np.float64))).astype(x.dtype)


@register
class Erf(Unary):
    """y = erf(x)."""

    name = "erf"
    onnx_types = ("Erf",)

    def function(self, x: Array, node: Node) -> Array:
        return erf(x)

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        return x.erf()

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("Erf", list(node.inputs), list(node.outputs), node.name)
