"""Piecewise approximation of SiLU (Howard et al. 2019, arXiv 1905.02244)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSink, OnnxSource, TfliteSink, TorchTensor, register
from edgeq.ops.tflite_forms import table_lookup
from edgeq.ops.unary import Unary


@register
class HardSwish(Unary):
    """y = x * clip(x / 6 + 1 / 2, 0, 1)."""

    name = "hard_swish"
    onnx_types = ("HardSwish",)

    def function(self, x: Array, node: Node) -> Array:
        return np.asarray(x * np.clip(x * x.dtype.type(1.0 / 6.0) + x.dtype.type(0.5), 0, 1))

    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        import torch

        return torch.nn.functional.hardswish(x)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        self.emit_unary(source, node, Attrs())

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        sink.emit("HardSwish", list(node.inputs), list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """The builtin where its 16-bit arithmetic gives the right code for every input, else the table."""
        table = self.table(node, graph)
        builtin = builtin_hard_swish(graph.quant(node.inputs[0]), graph.quant(node.outputs[0]))
        if builtin is not None and np.array_equal(builtin, table):
            sink.emit("HARD_SWISH", list(node.inputs), list(node.outputs))
        else:
            table_lookup(sink, node, table)


def builtin_hard_swish(quant_in: QuantParams, quant_out: QuantParams) -> npt.NDArray[np.int8] | None:
    """Returns what TFLite's HARD_SWISH computes for each input code -128..127, shape (256,); None if it refuses.

    Fixed point with 16 bits: the input times 128, the gate as a multiple of 1 / 32768, products that keep their high
    halves.
    """
    fine = np.float32(1 / 128) * np.float32(quant_in.scale)
    gate_scale = np.float32(3) / np.float32(32768)
    factor, shift = _multiplier(float(fine / np.float32(quant_out.scale)))
    gate_factor, gate_shift = _multiplier(float(fine / gate_scale))
    if shift > 0:
        return None
    x = (np.arange(-128, 128, dtype=np.int64) - int(quant_in.zero_point)) * 128
    gate = _saturate(x << (gate_shift - 1)) if gate_shift > 0 else x
    gate = _rounded_high_product(gate, gate_factor)
    if gate_shift > 0:
        gate = _saturate(gate * 2)
    elif gate_shift < 0:
        gate = _rounded_shift(gate, -gate_shift)
    gate = (gate + (1 << 15)) >> 1
    product = gate * _rounded_high_product(x, factor)
    high = np.sign(product) * (np.abs(product) >> 15)
    result: npt.NDArray[np.int8] = np.clip(
        _rounded_shift(_saturate(high), -shift) + int(quant_out.zero_point), -128, 127
    ).astype(np.int8)
    return result


def _multiplier(value: float) -> tuple[int, int]:
    """A factor as a 16-bit mantissa (of 2^15) and an exponent, by way of 32 bits as TFLite does it."""
    fraction, exponent = math.frexp(value)
    wide = math.floor(fraction * (1 << 31) + 0.5)
    if wide == 1 << 31:
        wide, exponent = wide // 2, exponent + 1
    return min((wide + (1 << 15)) >> 16, (1 << 15) - 1), exponent


def _saturate(x: Array) -> Array:
    clipped: Array = np.clip(x, -(1 << 15), (1 << 15) - 1)
    return clipped


def _rounded_high_product(x: Array, factor: int) -> Array:
    """x * factor / 2^15, rounded to nearest, ties away from zero (up, below zero, by truncation)."""
    product = x * factor
    nudged = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    return _saturate(np.sign(nudged) * (np.abs(nudged) >> 15))


def _rounded_shift(x: Array, bits: int) -> Array:
    """x / 2^bits, rounded to nearest, ties away from zero."""
    mask = (1 << bits) - 1
    return (x >> bits) + ((x & mask) > (mask >> 1) + (x < 0))
