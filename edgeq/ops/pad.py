"""Padding with a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    OnnxSource,
    Operator,
    QuantRule,
    Shape,
    TfliteSink,
    TorchTensor,
    attrs_of,
    operand,
    quantize,
    register,
    torch_operand,
)
from edgeq.ops.tflite_forms import pad


@dataclass(frozen=True, slots=True)
class PadAttrs(Attrs):
    """Attributes of `pad`; before and after have an entry an axis, in the graph's own layout, 0 for the batch.

    Attributes:
        before: Elements added at the beginning of each axis.
        after: Elements added at the end of each axis.
        value: What the border holds.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0


@register
class Pad(Operator):
    """y = x with a constant border."""

    name = "pad"
    attrs_type = PadAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("Pad",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        attrs, shape = attrs_of(node, PadAttrs), graph.tensor(node.inputs[0]).shape
        if len(attrs.before) != len(shape) or len(attrs.after) != len(shape) or min(attrs.before + attrs.after) < 0:
            raise GraphError(f"{node.name}: pads {attrs.before} and {attrs.after} do not fit {list(shape)}")
        if shape[0] == BATCH and (attrs.before[0] or attrs.after[0]):
            raise GraphError(f"{node.name}: the batch axis cannot be padded")
        padded = [size + b + a for size, b, a in zip(shape, attrs.before, attrs.after, strict=False)]
        return [((shape[0], *padded[1:]), "float32")]

    def _run(self, node: Node, values: Sequence[Array | None], border: float) -> list[Array]:
        attrs = attrs_of(node, PadAttrs)
        return [np.pad(operand(values, 0), list(zip(attrs.before, attrs.after, strict=False)), constant_values=border)]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values, attrs_of(node, PadAttrs).value)

    def border_code(self, node: Node, graph: Graph) -> int:
        """Returns the code that the border of a quantized node holds."""
        return int(quantize(np.float32(attrs_of(node, PadAttrs).value), graph.quant(node.outputs[0])))

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        attrs = attrs_of(node, PadAttrs)
        # torch wants the last axis first.
        sides = [side for pair in zip(attrs.before[::-1], attrs.after[::-1], strict=True) for side in pair]
        return [torch.nn.functional.pad(torch_operand(values, 0), sides, value=attrs.value)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values, self.border_code(node, graph))

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        mode = source.attribute(node, "mode", b"constant")
        mode = mode.decode() if isinstance(mode, bytes) else mode
        if mode != "constant":
            raise source.fail(node, f"padding mode {mode} is not supported, only constant")
        rank = len(source.graph.tensor(node.input[0]).shape)
        pads = [int(v) for v in source.require_constant(node, 1, "pads").reshape(-1)]
        border = 0.0
        if len(node.input) > 2 and node.input[2]:
            border = float(source.require_constant(node, 2, "border value").reshape(-1)[0])
        axes = list(range(rank))
        if len(node.input) > 3 and node.input[3]:
            axes = [int(a) % rank for a in source.require_constant(node, 3, "axes").reshape(-1)]
        if len(pads) != 2 * len(axes):
            raise source.fail(node, f"{len(pads)} pads do not fit {len(axes)} axes")
        if min(pads, default=0) < 0 or not np.isfinite(border):
            raise source.fail(node, f"pads {pads} must not be negative and the border {border} must be finite")
        before, after = [0] * rank, [0] * rank
        for i, axis in enumerate(axes):
            before[axis], after[axis] = pads[i], pads[i + len(axes)]
        if before[0] or after[0]:
            raise source.fail(node, "it pads the batch axis")
        attrs = PadAttrs(tuple(before), tuple(after), border)
        source.emit("pad", source.name_of(node), [node.input[0]], [node.output[0]], attrs)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs = attrs_of(node, PadAttrs)
        pads = sink.initializer(f"{node.name}.pads", np.array([*attrs.before, *attrs.after], np.int64))
        border = sink.initializer(f"{node.name}.value", np.asarray(attrs.value, np.float32))
        sink.emit("Pad", [node.inputs[0], pads, border], list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        attrs, code = attrs_of(node, PadAttrs), self.border_code(node, graph)
        pad(sink, node.outputs[0], node.inputs[0], attrs.before, attrs.after, code, existing=True)
