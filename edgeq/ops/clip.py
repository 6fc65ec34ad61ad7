"""Clipping to an interval, alone (a fused one is the clamp of its producer)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    NO_CLAMP,
    OnnxSink,
    OnnxSource,
    TfliteSink,
    TorchTensor,
    attrs_of,
    clamp_codes,
    register,
    torch_clamp,
)
from edgeq.ops.conv import emit_clamp
from edgeq.ops.tflite_forms import requantized
from edgeq.ops.unary import Unary


@dataclass(frozen=True, slots=True)
class ClipAttrs(Attrs):
    """Attributes of `clip`.

    Attributes:
        low: Smallest output, may be -inf.
        high: Largest output, may be inf.
    """

    low: float = -math.inf
    high: float = math.inf


@register
class Clip(Unary):
    """y = min(max(x, low), high)."""

    name = "clip"
    attrs_type = ClipAttrs
    onnx_types = ("Clip", "Max", "Min")

    def function(self, x: Array, node: Node) -> Array:
        attrs = attrs_of(node, ClipAttrs)
        return np.asarray(np.minimum(np.maximum(x, x.dtype.type(attrs.low)), x.dtype.type(attrs.high)))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        attrs = attrs_of(node, ClipAttrs)
        return torch_clamp(x, (attrs.low, attrs.high))

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        if node.op_type != "Clip":
            self._from_extreme(source, node)
            return
        bounds = [-math.inf, math.inf]
        for side in range(2):
            if len(node.input) > side + 1 and node.input[side + 1]:
                value = source.require_constant(node, side + 1, ("lower bound", "upper bound")[side])
                if value.size != 1:
                    raise source.fail(node, "the bounds must be single numbers")
                bounds[side] = float(value.reshape(-1)[0])
        low, high = (math.copysign(math.inf, b) if abs(b) >= float(np.finfo(np.float32).max) else b for b in bounds)
        if math.isnan(low) or math.isnan(high) or low > high:
            raise source.fail(node, f"the bounds {low} and {high} are not an interval")
        self.emit_unary(source, node, ClipAttrs(low, high))

    def _from_extreme(self, source: OnnxSource, node: Any) -> None:
        """Max and Min of an activation and one number."""
        constants = [source.constant_input(node, i) for i in range(len(node.input))]
        numbers = [value for value in constants if value is not None]
        if len(constants) != 2 or len(numbers) != 1 or numbers[0].size != 1:
            raise source.fail(node, "only the maximum or minimum of an activation and one constant number is supported")
        bound = float(numbers[0].reshape(-1)[0])
        attrs = ClipAttrs(low=bound) if node.op_type == "Max" else ClipAttrs(high=bound)
        x = node.input[0 if constants[0] is None else 1]
        source.emit("clip", source.name_of(node), [x], [node.output[0]], attrs)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs = attrs_of(node, ClipAttrs)
        if (attrs.low, attrs.high) == NO_CLAMP:
            sink.emit("Identity", list(node.inputs), list(node.outputs), node.name)
        else:
            emit_clamp(sink, (attrs.low, attrs.high), node.inputs[0], node.outputs[0], node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        attrs, x, y = attrs_of(node, ClipAttrs), node.inputs[0], node.outputs[0]
        quant = graph.quant(y)
        codes = clamp_codes((attrs.low, attrs.high), quant)
        if not quant.same_as(graph.quant(x)):
            if codes == (quant.qmin, quant.qmax):
                requantized(sink, x, y)
                return
            # Rounding is monotone, so that clamping after it gives the same codes.
            x = sink.activation(f"{y}.unclipped", graph.tensor(y).shape, quant)
            requantized(sink, node.inputs[0], x)
        sink.clamp_between(x, y, codes)
