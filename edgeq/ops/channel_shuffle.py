"""Channel shuffle (Zhang et al. 2018, arXiv 1707.01083): interleaves the groups of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    Operator,
    QuantRule,
    Shape,
    TfliteSink,
    TorchTensor,
    attrs_of,
    channel_axis,
    operand,
    register,
    torch_operand,
)
from edgeq.ops.tflite_forms import reshaped, transposed


@dataclass(frozen=True, slots=True)
class ChannelShuffleAttrs(Attrs):
    """Attributes of `channel_shuffle`.

    Attributes:
        groups: Output channel i * groups + g is input channel g * (channels / groups) + i.
    """

    groups: int


def shuffled_channels(channels: int, groups: int) -> Array:
    """Returns the input channel of each output channel, shape (channels,)."""
    return np.asarray(np.arange(channels).reshape(groups, channels // groups).T.reshape(-1))


@register
class ChannelShuffle(Operator):
    """y = x with its channels, seen as [groups, channels / groups], transposed."""

    name = "channel_shuffle"
    attrs_type = ChannelShuffleAttrs
    quant_rule = QuantRule.SAME

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        groups, shape = attrs_of(node, ChannelShuffleAttrs).groups, graph.tensor(node.inputs[0]).shape
        if len(shape) < 2 or groups < 1 or shape[channel_axis(len(shape), graph.layout)] % groups:
            raise GraphError(f"{node.name}: {groups} groups do not divide the channels of {list(shape)}")
        return [(shape, "float32")]

    def _run(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        x = operand(values, 0)
        axis = channel_axis(x.ndim, graph.layout)
        order = shuffled_channels(x.shape[axis], attrs_of(node, ChannelShuffleAttrs).groups)
        return [np.ascontiguousarray(np.take(x, order, axis=axis))]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values, graph)

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        x, groups = torch_operand(values, 0), attrs_of(node, ChannelShuffleAttrs).groups
        batch, channels, *rest = x.shape
        return [x.reshape(batch, groups, channels // groups, *rest).transpose(1, 2).reshape(x.shape)]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values, graph)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        groups, shape = attrs_of(node, ChannelShuffleAttrs).groups, graph.tensor(node.inputs[0]).shape
        split, turned = sink.fresh(f"{node.outputs[0]}.split"), sink.fresh(f"{node.outputs[0]}.turned")
        rest = list(shape[2:])
        inner = sink.initializer(f"{node.name}.inner", np.array([-1, groups, shape[1] // groups, *rest], np.int64))
        outer = sink.initializer(f"{node.name}.outer", np.array([-1, shape[1], *rest], np.int64))
        sink.emit("Reshape", [node.inputs[0], inner], [split], f"{node.name}.split")
        sink.emit("Transpose", [split], [turned], f"{node.name}.turn", perm=[0, 2, 1, *range(3, len(shape) + 1)])
        sink.emit("Reshape", [turned, outer], list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """RESHAPE, TRANSPOSE, RESHAPE: the only way that XNNPACK runs (a GATHER takes four times as long)."""
        groups, x = attrs_of(node, ChannelShuffleAttrs).groups, graph.tensor(node.inputs[0])
        y, pixels, inner = node.outputs[0], math.prod(x.shape[1:-1]), x.shape[-1] // groups
        split = sink.activation(f"{y}.split", (x.shape[0], pixels, groups, inner), x.quant)
        turned = sink.activation(f"{y}.turned", (x.shape[0], pixels, inner, groups), x.quant)
        reshaped(sink, x.name, split)
        transposed(sink, split, turned, (0, 1, 3, 2))
        reshaped(sink, turned, y)
