"""Power with a constant exponent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TorchTensor, attrs_of, register
from edgeq.ops.unary import Unary


@dataclass(frozen=True, slots=True)
class PowAttrs(Attrs):
    """Attributes of `pow`.

    Attributes:
        exponent: The exponent.
    """

    exponent: float


@register
class Pow(Unary):
    """y = x ** exponent."""

    name = "pow"
    attrs_type = PowAttrs
    onnx_types = ("Pow",)

    def function(self, x: Array, node: Node) -> Array:
        exponent = attrs_of(node, PowAttrs).exponent
        if exponent == int(exponent) and 0 < exponent <= 4:
            return np.asarray(np.prod([x] * int(exponent), axis=0))
        return np.asarray(np.power(x, x.dtype.type(exponent)))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        exponent = attrs_of(node, PowAttrs).exponent
        return x ** (int(exponent) if exponent == int(exponent) else exponent)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        exponent = source.require_constant(node, 1, "exponent")
        if exponent.size != 1:
            raise source.fail(node, "the exponent must be one number")
        self.emit_unary(source, node, PowAttrs(float(exponent.reshape(-1)[0])))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        exponent = sink.initializer(f"{node.name}.exponent", np.asarray(attrs_of(node, PowAttrs).exponent, np.float32))
        sink.emit("Pow", [node.inputs[0], exponent], list(node.outputs), node.name)
