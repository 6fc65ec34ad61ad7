"""Rounding to the values that codes can stand for. Float graphs only; `passes.absorb_quantization` removes it.

What QuantizeLinear and DequantizeLinear do together: importers of quantized models put one where the model rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    Operator,
    Shape,
    TorchTensor,
    attrs_of,
    dequantize,
    operand,
    quantize,
    register,
    torch_operand,
)


@dataclass(frozen=True, slots=True)
class FakeQuantAttrs(Attrs):
    """Attributes of `fake_quant`.

    Attributes:
        quant: Per-tensor, 4 or 8 bits.
    """

    quant: QuantParams


@register
class FakeQuant(Operator):
    """y = (clamp(rne(x / s) + z) - z) * s."""

    name = "fake_quant"
    attrs_type = FakeQuantAttrs

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        attrs_of(node, FakeQuantAttrs)
        return [(graph.tensor(node.inputs[0]).shape, "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        quant = attrs_of(node, FakeQuantAttrs).quant
        return [dequantize(quantize(operand(values, 0), quant), quant)]

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        """Writes the arithmetic, not QuantizeLinear and DequantizeLinear: between those, onnxruntime rounds the float
        weights of a layer to 8 bits, unasked (its WeightBiasQuantization)."""
        quant, x = attrs_of(node, FakeQuantAttrs).quant, node.inputs[0]
        zero = int(quant.zero_point)

        def number(name: str, value: float) -> str:
            return sink.initializer(f"{node.name}.{name}", np.asarray(value, dtype=np.float32))

        scale = number("scale", float(quant.scale))
        bounds = [number("low", quant.qmin - zero), number("high", quant.qmax - zero)]
        steps, whole, clipped = (sink.fresh(f"{x}.{stage}") for stage in ("steps", "whole", "clipped"))
        sink.emit("Div", [x, scale], [steps], f"{node.name}.div")
        sink.emit("Round", [steps], [whole], f"{node.name}.round")  # half to even
        sink.emit("Clip", [whole, *bounds], [clipped], f"{node.name}.clip")
        sink.emit("Mul", [clipped, scale], [node.outputs[0]], f"{node.name}.mul")

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        quant, x = attrs_of(node, FakeQuantAttrs).quant, torch_operand(values, 0)
        scale, zero = float(quant.scale), int(quant.zero_point)
        steps = (x / scale).clamp(quant.qmin - zero, quant.qmax - zero)
        # The rounded value, with the gradient of the one that was not: the difference is exactly 0.
        return [(steps.detach().round() + (steps - steps.detach())) * scale]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        raise GraphError(f"{node.name}: fake_quant has no integer meaning; run edgeq.passes.absorb_quantization first")

    def check_quant(self, node: Node, graph: Graph) -> None:
        raise GraphError(f"{node.name}: a quantized graph cannot hold fake_quant; run edgeq.passes.absorb_quantization")
