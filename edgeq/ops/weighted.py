"""What conv, conv_transpose and linear share: the exact product, the epilogue, the rules for weights and biases."""

from __future__ import annotations

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import Clamp, clamp_codes, conv_multiplier, requantize


def finish_channels(acc: Array, node: Node, graph: Graph, clamp: Clamp, axis: int) -> Array:
    """Requantizes accumulators whose output channels are on `axis` with m[c] = (s_x * s_w[c]) / s_y."""
    out = graph.quant(node.outputs[0])
    multiplier = np.broadcast_to(
        conv_multiplier(graph, node.inputs[0], node.inputs[1], node.outputs[0]), (acc.shape[axis],)
    )
    shaped = multiplier.reshape([-1 if i == axis else 1 for i in range(acc.ndim)])
    return requantize(acc, shaped, int(out.zero_point), *clamp_codes(clamp, out))


def check_weighted(node: Node, graph: Graph) -> None:
    """Raises GraphError when weights, bias or their scales break the rules, or an accumulator could leave 32 bits."""
    x, weights = graph.quant(node.inputs[0]), graph.tensor(node.inputs[1])
    quant = graph.quant(node.inputs[1])
    if weights.data is None or weights.dtype != "int8":
        raise GraphError(f"{node.name}: quantized weights must be an int8 constant")
    if quant.axis not in (None, 0) or np.any(quant.zero_point != 0) or quant.bits not in (4, 8):
        raise GraphError(
            f"{node.name}: weights must be 4- or 8-bit, zero point 0, one scale an output channel (axis 0)"
        )
    wide = np.abs(weights.data.astype(np.int16))
    if wide.max(initial=0) > quant.qmax:
        raise GraphError(f"{node.name}: weights must lie in [-{quant.qmax}, {quant.qmax}]")
    largest = max(x.qmax - int(x.zero_point), int(x.zero_point) - x.qmin)
    bound = largest * wide.reshape(wide.shape[0], -1).sum(axis=1, dtype=np.int64)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias, bias_quant = graph.tensor(node.inputs[2]), graph.quant(node.inputs[2])
        expected = np.float32(x.scale) * quant.scale
        if bias.data is None or bias.dtype != "int32" or bias_quant.bits != 32 or np.any(bias_quant.zero_point != 0):
            raise GraphError(f"{node.name}: a quantized bias must be an int32 constant, zero point 0, bits 32")
        if not np.array_equal(bias_quant.scale, expected):
            raise GraphError(f"{node.name}: the scale of a bias must be s_x * s_w in float32")
        bound = bound + np.abs(bias.data.astype(np.int64))
    if bound.max(initial=0) >= 1 << 31:
        raise GraphError(
            f"{node.name}: an accumulator could reach {int(bound.max())}, beyond 32 bits; raise the weight scales of "
            "the channels with the largest bias, or split the layer"
        )
