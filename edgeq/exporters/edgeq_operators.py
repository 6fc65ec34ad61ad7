"""The operators of a .edgeq file: codes, operands, and attributes as lists of 32-bit integers (docs/format.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.errors import FormatError, GraphError
from edgeq.exporters.edgeq_format import MAX_DIMENSION
from edgeq.ir import Attrs, Graph, Node, Tensor
from edgeq.ops import get
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import Clamp, Window, attrs_of, clamp_codes
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.pad import Pad, PadAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.resize import Coordinates, NearestRounding, ResizeAttrs, ResizeMode
from edgeq.ops.slice import SliceAttrs
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.ops.transpose import TransposeAttrs

MAX_CONCAT = 1000
MAX_TAPS = (1 << 23) - 1
"""So many codes of a pool or a mean, each at most 255 from the zero point, stay below 2^31."""

MAX_MULTIPLIER = 1e30
"""A multiplier up to this, times an accumulator of 32 bits, stays a float32 number."""

SOFTMAX_ONE = 1 << 40
MAX_SOFTMAX = 1 << 22
"""So many terms of at most 2^40 each stay below 2^63."""


class Fields:
    """The attributes of one node of a file, taken one after the other.

    Raises:
        GraphError: From every method, when the attributes are used up or out of range.
    """

    def __init__(self, values: Sequence[int]) -> None:
        self._values = values
        self._next = 0

    def take(self, low: int, high: int) -> int:
        """Returns the next one, which must lie in [low, high]."""
        if self._next >= len(self._values):
            raise GraphError(f"it has {len(self._values)} attributes, too few")
        value = self._values[self._next]
        self._next += 1
        if not low <= value <= high:
            raise GraphError(f"attribute {self._next - 1} is {value}, not in {low}..{high}")
        return value

    def several(self, count: int, low: int, high: int) -> tuple[int, ...]:
        """Returns the next `count`."""
        return tuple(self.take(low, high) for _ in range(count))

    def pair(self, low: int, high: int) -> tuple[int, int]:
        """Returns the next two."""
        return self.take(low, high), self.take(low, high)

    def pads(self) -> tuple[int, int, int, int]:
        """Returns top, left, bottom, right."""
        top, left = self.pair(0, MAX_DIMENSION)
        return top, left, *self.pair(0, MAX_DIMENSION)

    def flag(self) -> bool:
        """Returns the next one, 0 or 1."""
        return bool(self.take(0, 1))

    def clamp(self, output: str, graph: Graph) -> Clamp:
        """Returns the real bounds of the next two, codes of `output`; a bound of the code range is none."""
        quant = graph.quant(output)
        low, high = self.pair(quant.qmin, quant.qmax)
        if low > high:
            raise GraphError(f"the bounds of its output codes are {low} and {high}")
        # The products and the division by the scale in `clamp_codes` are exact in float64.
        zero, scale = int(quant.zero_point), float(quant.scale)
        return (
            -math.inf if low == quant.qmin else (low - zero) * scale,
            math.inf if high == quant.qmax else (high - zero) * scale,
        )

    def end(self) -> None:
        """Checks that nothing is left."""
        if self._next != len(self._values):
            raise GraphError(f"it has {len(self._values)} attributes, not {self._next}")


Encode = Callable[[Node, Graph], list[int]]
Decode = Callable[[Fields, Node, Graph], Attrs]


@dataclass(frozen=True, slots=True)
class FileOperator:
    """One operator of the format.

    Attributes:
        code: Its number in files.
        name: Its `Node.op`.
        operands: What each input must be: "x" a quantized activation, "c" that or a quantized constant, "w" weights,
            "b" a bias or absent, "t" a table of int8, "e" a table of exponentials. "x*" any number of activations.
        write: Attributes to integers.
        read: The inverse; the node has no attributes yet, its tensors are in the graph.
    """

    code: int
    name: str
    operands: tuple[str, ...]
    write: Encode
    read: Decode

    def encode(self, node: Node, graph: Graph) -> list[int]:
        """Returns the attributes of a node as integers."""
        return self.write(node, graph)

    def decode(self, values: Sequence[int], node: Node, graph: Graph) -> Attrs:
        """Returns the attributes of a node of a file; raises GraphError when they are no attributes of it."""
        fields = Fields(values)
        attrs = self.read(fields, node, graph)
        fields.end()
        return attrs


def operator_of(node: Node) -> FileOperator:
    """Returns the row of a node's operator; raises FormatError when the format has none."""
    try:
        return OPERATORS[node.op]
    except KeyError:
        raise FormatError(
            f"{node.name}: a .edgeq file has no operator {node.op}; run edgeq.passes.lower (one-input functions become "
            f"tables) on a quantized graph. It has {', '.join(sorted(OPERATORS))}"
        ) from None


def check_operands(operator: FileOperator, inputs: Sequence[str], output: str, graph: Graph) -> None:
    """Raises GraphError when the operands of a node are not of the kinds that its operator takes."""
    kinds = operator.operands
    if kinds == ("x*",):
        if not 1 <= len(inputs) <= MAX_CONCAT:
            raise GraphError(f"it has {len(inputs)} inputs, not 1..{MAX_CONCAT}")
        kinds = ("x",) * len(inputs)
    if not sum(kind != "b" for kind in kinds) <= len(inputs) <= len(kinds):
        raise GraphError(f"it has {len(inputs)} inputs, its operator takes {len(kinds)}")
    for index, (name, kind) in enumerate(zip(inputs, kinds, strict=False)):
        if not name:
            if kind != "b":
                raise GraphError(f"its input {index} is absent")
        elif not _KINDS[kind](graph.tensor(name)):
            raise GraphError(f"its input {index} is not {_MEANINGS[kind]}")
    result = graph.tensor(output)
    if operator.name == "softmax":
        if result.dtype != "float32" or result.quant is not None:
            raise GraphError("its output is not float32")
    elif not _is_codes(result):
        raise GraphError("its output is not a quantized int8 activation")
    if kinds.count("c") == 2 and all(graph.tensor(name).is_constant for name in inputs):
        raise GraphError("both its inputs are constants")


def check_arithmetic(node: Node, graph: Graph) -> None:
    """Raises GraphError when the scales of a node give a multiplier that is not a sane number, or a sum is too long."""
    scales = [
        graph.quant(name).scale for name in (*node.inputs[:2], *node.outputs) if graph.tensor(name).quant is not None
    ]
    with np.errstate(over="ignore"):
        if node.op in ("conv", "conv_transpose", "linear", "mul"):
            multipliers = [(scales[0] * scales[1]) / scales[2]]
        elif node.op in ("add", "sub"):
            multipliers = [scales[0] / scales[2], scales[1] / scales[2]]
        elif node.op in ("avg_pool", "mean"):
            multipliers = [scales[0] / scales[1]]
        else:
            multipliers = []
    if not all(np.all(multiplier <= MAX_MULTIPLIER) for multiplier in multipliers):
        raise GraphError("its scales give a multiplier that is not a sane number")
    if node.op == "mean" and np.prod(graph.tensor(node.inputs[0]).shape[1:3]) > MAX_TAPS:
        raise GraphError(f"it averages more than {MAX_TAPS} pixels")


def _is_codes(tensor: Tensor) -> bool:
    return tensor.dtype == "int8" and tensor.quant is not None and tensor.quant.axis is None


def _is_weights(tensor: Tensor) -> bool:
    return tensor.is_constant and tensor.dtype == "int8" and tensor.quant is not None and len(tensor.shape) in (2, 4)


def _is_bias(tensor: Tensor) -> bool:
    return tensor.is_constant and tensor.dtype == "int32" and tensor.quant is not None and len(tensor.shape) == 1


def _is_table(tensor: Tensor) -> bool:
    return tensor.is_constant and tensor.dtype == "int8" and tensor.quant is None and tensor.shape[-1:] == (256,)


def _is_exponentials(tensor: Tensor) -> bool:
    table = tensor.data
    if table is None or tensor.dtype != "int64" or tensor.shape != (256,):
        return False
    return bool(table[0] == SOFTMAX_ONE and np.all(table >= 0) and np.all(table <= SOFTMAX_ONE))


_KINDS: dict[str, Callable[[Tensor], bool]] = {
    "x": lambda tensor: _is_codes(tensor) and not tensor.is_constant,
    "c": _is_codes,
    "w": _is_weights,
    "b": _is_bias,
    "t": _is_table,
    "e": _is_exponentials,
}
_MEANINGS = {
    "x": "a quantized int8 activation",
    "c": "int8 with per-tensor quantization",
    "w": "a quantized int8 constant of rank 2 or 4",
    "b": "a quantized int32 constant of rank 1",
    "t": "an int8 constant of shape [256] or [channels, 256]",
    "e": "an int64 constant of shape [256] that starts with 2^40 and stays in 0..2^40",
}


# --- attributes ---


def _codes(clamp: Clamp, node: Node, graph: Graph) -> list[int]:
    return list(clamp_codes(clamp, graph.quant(node.outputs[0])))


def _kernel(node: Node, graph: Graph) -> tuple[int, int]:
    """The kernel of NHWC weights."""
    shape = graph.tensor(node.inputs[1]).shape
    if len(shape) != 4:
        raise GraphError(f"its weights have shape {list(shape)}, not rank 4")
    return shape[1], shape[2]


def _checked(window: Window, node: Node, graph: Graph) -> Window:
    """A window over the node's input, whose padding must not make the image absurdly larger."""
    shape = graph.tensor(node.inputs[0]).shape
    if len(shape) != 4:
        raise GraphError(f"its input has shape {list(shape)}, not rank 4")
    top, left, bottom, right = window.pads
    padded = (shape[1] + top + bottom) * (shape[2] + left + right)
    if padded > (1 << 20) + 16 * shape[1] * shape[2]:
        raise GraphError(f"its padding {list(window.pads)} is absurd for an image of {shape[1]} x {shape[2]}")
    return window


def _write_conv(node: Node, graph: Graph) -> list[int]:
    attrs = attrs_of(node, ConvAttrs)
    window = attrs.window
    return [*window.strides, *window.pads, *window.dilations, attrs.groups, *_codes(attrs.clamp, node, graph)]


def _read_conv(fields: Fields, node: Node, graph: Graph) -> Attrs:
    strides, pads = fields.pair(1, MAX_DIMENSION), fields.pads()
    window = Window(_kernel(node, graph), strides, pads, fields.pair(1, MAX_DIMENSION))
    groups = fields.take(1, MAX_DIMENSION)
    return ConvAttrs(_checked(window, node, graph), groups, fields.clamp(node.outputs[0], graph))


def _write_conv_transpose(node: Node, graph: Graph) -> list[int]:
    attrs = attrs_of(node, ConvTransposeAttrs)
    window = attrs.window
    return [
        *window.strides, *window.pads, *window.dilations, attrs.groups, *attrs.output_padding,
        *_codes(attrs.clamp, node, graph),
    ]  # fmt: skip


def _read_conv_transpose(fields: Fields, node: Node, graph: Graph) -> Attrs:
    strides, pads = fields.pair(1, MAX_DIMENSION), fields.pads()
    window = Window(_kernel(node, graph), strides, pads, fields.pair(1, MAX_DIMENSION))
    groups, padding = fields.take(1, MAX_DIMENSION), fields.pair(0, MAX_DIMENSION)
    return ConvTransposeAttrs(window, groups, padding, fields.clamp(node.outputs[0], graph))


def _write_linear(node: Node, graph: Graph) -> list[int]:
    return _codes(attrs_of(node, LinearAttrs).clamp, node, graph)


def _read_linear(fields: Fields, node: Node, graph: Graph) -> Attrs:
    return LinearAttrs(fields.clamp(node.outputs[0], graph))


def _write_elementwise(node: Node, graph: Graph) -> list[int]:
    return _codes(attrs_of(node, ElementwiseAttrs).clamp, node, graph)


def _read_elementwise(fields: Fields, node: Node, graph: Graph) -> Attrs:
    return ElementwiseAttrs(fields.clamp(node.outputs[0], graph))


def _write_nothing(node: Node, graph: Graph) -> list[int]:
    return []


def _read_nothing(fields: Fields, node: Node, graph: Graph) -> Attrs:
    return Attrs()


def _write_max_pool(node: Node, graph: Graph) -> list[int]:
    window = attrs_of(node, MaxPoolAttrs).window
    return [*window.kernel, *window.strides, *window.pads, *window.dilations]


def _read_pool_window(fields: Fields) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    kernel, strides = fields.pair(1, MAX_DIMENSION), fields.pair(1, MAX_DIMENSION)
    if kernel[0] * kernel[1] > MAX_TAPS:
        raise GraphError(f"its kernel {kernel[0]} x {kernel[1]} has more than {MAX_TAPS} taps")
    return kernel, strides, fields.pads()


def _read_max_pool(fields: Fields, node: Node, graph: Graph) -> Attrs:
    window = Window(*_read_pool_window(fields), fields.pair(1, MAX_DIMENSION))
    return MaxPoolAttrs(_checked(window, node, graph))


def _write_avg_pool(node: Node, graph: Graph) -> list[int]:
    attrs = attrs_of(node, AvgPoolAttrs)
    window = attrs.window
    return [*window.kernel, *window.strides, *window.pads, int(attrs.count_include_pad)]


def _read_avg_pool(fields: Fields, node: Node, graph: Graph) -> Attrs:
    window = Window(*_read_pool_window(fields))
    return AvgPoolAttrs(_checked(window, node, graph), fields.flag())


def _write_mean(node: Node, graph: Graph) -> list[int]:
    return [int(attrs_of(node, MeanAttrs).keep_dims)]


def _read_mean(fields: Fields, node: Node, graph: Graph) -> Attrs:
    return MeanAttrs(fields.flag())


def _write_concat(node: Node, graph: Graph) -> list[int]:
    return [attrs_of(node, ConcatAttrs).axis]


def _read_concat(fields: Fields, node: Node, graph: Graph) -> Attrs:
    return ConcatAttrs(fields.take(1, _rank(node, graph) - 1))


def _write_slice(node: Node, graph: Graph) -> list[int]:
    attrs = attrs_of(node, SliceAttrs)
    return [*attrs.begin, *attrs.stride]


def _read_slice(fields: Fields, node: Node, graph: Graph) -> Attrs:
    rank = _rank(node, graph)
    begin, stride = fields.several(rank, 0, MAX_DIMENSION), fields.several(rank, 1, MAX_DIMENSION)
    return SliceAttrs(begin, stride, graph.tensor(node.outputs[0]).shape)


def _read_reshape(fields: Fields, node: Node, graph: Graph) -> Attrs:
    return ReshapeAttrs(graph.tensor(node.outputs[0]).shape)


def _write_transpose(node: Node, graph: Graph) -> list[int]:
    return list(attrs_of(node, TransposeAttrs).permutation)


def _read_transpose(fields: Fields, node: Node, graph: Graph) -> Attrs:
    rank = _rank(node, graph)
    return TransposeAttrs(fields.several(rank, 0, rank - 1))


def _write_pad(node: Node, graph: Graph) -> list[int]:
    attrs, operator = attrs_of(node, PadAttrs), get("pad")
    assert isinstance(operator, Pad)
    return [*attrs.before, *attrs.after, operator.border_code(node, graph)]


def _read_pad(fields: Fields, node: Node, graph: Graph) -> Attrs:
    rank, quant = _rank(node, graph), graph.quant(node.outputs[0])
    before, after = fields.several(rank, 0, MAX_DIMENSION), fields.several(rank, 0, MAX_DIMENSION)
    code = fields.take(quant.qmin, quant.qmax)
    return PadAttrs(before, after, (code - int(quant.zero_point)) * float(quant.scale))


def _write_resize(node: Node, graph: Graph) -> list[int]:
    attrs = attrs_of(node, ResizeAttrs)
    return [int(attrs.mode), int(attrs.coordinates), int(attrs.rounding)]


def _read_resize(fields: Fields, node: Node, graph: Graph) -> Attrs:
    shape = graph.tensor(node.outputs[0]).shape
    if len(shape) != 4:
        raise GraphError(f"its output has shape {list(shape)}, not rank 4")
    mode = ResizeMode(fields.take(0, 1))
    return ResizeAttrs((shape[1], shape[2]), mode, Coordinates(fields.take(0, 3)), NearestRounding(fields.take(0, 3)))


def _write_softmax(node: Node, graph: Graph) -> list[int]:
    if len(node.inputs) != 2:
        raise FormatError(f"{node.name}: softmax has no table of exponentials; run edgeq.passes.lower")
    return [attrs_of(node, SoftmaxAttrs).axis]


def _read_softmax(fields: Fields, node: Node, graph: Graph) -> Attrs:
    axis = fields.take(1, _rank(node, graph) - 1)
    if graph.tensor(node.inputs[0]).shape[axis] > MAX_SOFTMAX:
        raise GraphError(f"it sums more than {MAX_SOFTMAX} exponentials")
    return SoftmaxAttrs(axis)


def _write_channel_shuffle(node: Node, graph: Graph) -> list[int]:
    return [attrs_of(node, ChannelShuffleAttrs).groups]


def _read_channel_shuffle(fields: Fields, node: Node, graph: Graph) -> Attrs:
    return ChannelShuffleAttrs(fields.take(1, MAX_DIMENSION))


def _rank(node: Node, graph: Graph) -> int:
    return len(graph.tensor(node.inputs[0]).shape)


_WEIGHTED = ("x", "w", "b")

_ROWS = (
    FileOperator(1, "conv", _WEIGHTED, _write_conv, _read_conv),
    FileOperator(2, "conv_transpose", _WEIGHTED, _write_conv_transpose, _read_conv_transpose),
    FileOperator(3, "linear", _WEIGHTED, _write_linear, _read_linear),
    FileOperator(4, "add", ("c", "c"), _write_elementwise, _read_elementwise),
    FileOperator(5, "sub", ("c", "c"), _write_elementwise, _read_elementwise),
    FileOperator(6, "mul", ("c", "c"), _write_elementwise, _read_elementwise),
    FileOperator(7, "lut", ("x", "t"), _write_nothing, _read_nothing),
    FileOperator(8, "max_pool", ("x",), _write_max_pool, _read_max_pool),
    FileOperator(9, "avg_pool", ("x",), _write_avg_pool, _read_avg_pool),
    FileOperator(10, "mean", ("x",), _write_mean, _read_mean),
    FileOperator(11, "concat", ("x*",), _write_concat, _read_concat),
    FileOperator(12, "slice", ("x",), _write_slice, _read_slice),
    FileOperator(13, "reshape", ("x",), _write_nothing, _read_reshape),
    FileOperator(14, "transpose", ("x",), _write_transpose, _read_transpose),
    FileOperator(15, "pad", ("x",), _write_pad, _read_pad),
    FileOperator(16, "resize", ("x",), _write_resize, _read_resize),
    FileOperator(17, "softmax", ("x", "e"), _write_softmax, _read_softmax),
    FileOperator(18, "channel_shuffle", ("x",), _write_channel_shuffle, _read_channel_shuffle),
)

OPERATORS = {row.name: row for row in _ROWS}
OPERATORS_BY_CODE = {row.code: row for row in _ROWS}
