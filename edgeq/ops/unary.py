"""What the one-input functions share: shapes, the float statement and the 256-entry table of the integer one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.ir import Attrs, Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import OnnxSource, Operator, Shape, TfliteSink, TorchTensor, channel_axis, operand, torch_operand
from edgeq.ops.tflite_forms import table_lookup


def unary_table(
    function: Callable[[Array], Array], quant_in: QuantParams, quant_out: QuantParams
) -> npt.NDArray[np.int8]:
    """Returns the table of a one-input function: entry q + 128 is the output code of input code q.

    `clamp(rne(f((q - z_x) * s_x) / s_y) + z_y)` in float64, the scales being the float32 values (docs/arithmetic.md).
    Where f has no value (NaN), the entry is the code of zero.

    Args:
        function: Maps float64 values of shape (256,) to float64, shape (256,), or (channels, 256) when the function
            differs by channel.
        quant_in: Per-tensor quantization of the input.
        quant_out: Per-tensor quantization of the output.
    """
    steps = np.rint(unary_steps(function, quant_in, quant_out))
    zero = int(quant_out.zero_point)
    steps = np.where(np.isnan(steps), 0.0, steps)
    return (np.clip(steps, quant_out.qmin - zero, quant_out.qmax - zero) + zero).astype(np.int8)


def unary_steps(
    function: Callable[[Array], Array], quant_in: QuantParams, quant_out: QuantParams
) -> npt.NDArray[np.float64]:
    """Returns `f((q - z_x) * s_x) / s_y` of every input code, in float64: what `unary_table` rounds; same arguments."""
    codes = np.arange(-128, 128, dtype=np.float64)
    with np.errstate(all="ignore"):
        return function((codes - int(quant_in.zero_point)) * float(quant_in.scale)) / float(quant_out.scale)


def apply_table(q: Array, table: Array, axis: int) -> Array:
    """Returns table[q + 128], or table[c][q + 128] with c along `axis` when the table has a row a channel."""
    index = q.astype(np.int16) + 128
    if table.ndim == 1:
        return table[index]
    shape = [-1 if i == axis else 1 for i in range(q.ndim)]
    return table[np.arange(table.shape[0]).reshape(shape), index]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, in the dtype of x."""
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + decay), decay / (1.0 + decay)).astype(x.dtype, copy=False)


class Unary(Operator):
    """Base of the elementwise functions of one activation; subclasses state `function`."""

    @abstractmethod
    def function(self, x: Array, node: Node) -> Array:
        """The function of float32 or float64 values, elementwise, in the dtype of x."""

    @abstractmethod
    def torch_function(self, x: TorchTensor, node: Node) -> TorchTensor:
        """The function of a torch tensor, elementwise, in the dtype of x."""

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        return [(graph.tensor(node.inputs[0]).shape, "float32")]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return [self.function(operand(values, 0), node).astype(np.float32, copy=False)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        return [self.torch_function(torch_operand(values, 0), node)]

    def table(self, node: Node, graph: Graph) -> npt.NDArray[np.int8]:
        """The table of a node of a quantized graph: int8, shape (256,), or (channels, 256)."""
        return unary_table(lambda x: self.function(x, node), graph.quant(node.inputs[0]), graph.quant(node.outputs[0]))

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        x = operand(values, 0)
        return [apply_table(x, self.table(node, graph), channel_axis(x.ndim, graph.layout))]

    def emit_unary(self, source: OnnxSource, node: Any, attrs: Attrs) -> None:
        """Emits this operator for an ONNX node whose first input is the activation."""
        source.emit(self.name, source.name_of(node), [node.input[0]], [node.output[0]], attrs)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """Any function as a table; an operator with a builtin that computes the same has a row of its own."""
        table_lookup(sink, node, self.table(node, graph))
