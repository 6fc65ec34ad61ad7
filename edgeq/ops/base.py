"""What an operator is: attributes, shapes, quantization rule, numpy statements, importers and exporters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ir.graph import Layout
from edgeq.ir.tensor import Array

Shape = tuple[int, ...]
Clamp = tuple[float, float]
NO_CLAMP: Clamp = (-math.inf, math.inf)
TorchTensor = Any
"""A torch.Tensor. torch is imported by the methods that use it, so that it has no type here."""
AttrsType = TypeVar("AttrsType", bound=Attrs)


class QuantRule(Enum):
    """How the output of an operator gets its quantization parameters.

    OWN: from its own calibrated range.
    SAME: shared with every activation input (concat, max pool, reshape, ...).
    FIXED: `Operator.fixed_range` gives the range whatever the data (sigmoid, tanh).
    FLOAT: the output stays float32 (softmax).
    """

    OWN = "own"
    SAME = "same"
    FIXED = "fixed"
    FLOAT = "float"


class OnnxSource(Protocol):
    """What an operator's `from_onnx` row may ask of the importer.

    `node` is the onnx.NodeProto. Constant inputs have been folded before a row is called.
    """

    graph: Graph
    opset: int

    def attribute(self, node: Any, name: str, default: Any = None) -> Any: ...

    def constant_input(self, node: Any, index: int) -> Array | None:
        """The value of a constant input, or None when it is absent or an activation."""
        ...

    def require_constant(self, node: Any, index: int, meaning: str) -> Array:
        """The value of a constant input; raises ImportModelError naming the node and `meaning` otherwise."""
        ...

    def shape_pair(self, node: Any, index: int) -> tuple[Array, Array] | None:
        """A constant input computed for batch 2 and for batch 3, or None when it is absent or an activation.

        The two differ exactly where the model computed the value from the batch size.
        """
        ...

    def add_constant(self, stem: str, value: Array) -> str:
        """Adds a constant to the graph and returns its tensor name."""
        ...

    def name_of(self, node: Any) -> str:
        """A unique name for the graph node that an ONNX node becomes."""
        ...

    def emit(self, op: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Attrs) -> None:
        """Appends a node and infers the shapes of its outputs."""
        ...

    def fail(self, node: Any, why: str) -> Exception:
        """Returns (does not raise) an error naming the node, its operator and the reason."""
        ...


class OnnxSink(Protocol):
    """What an operator's `to_onnx` row may ask of an ONNX exporter (float or QDQ)."""

    def emit(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any) -> None:
        """Appends an ONNX node."""
        ...

    def initializer(self, stem: str, value: Array) -> str:
        """Adds an initializer and returns its name."""
        ...

    def fresh(self, stem: str) -> str:
        """Returns an unused tensor name."""
        ...


class Int4Storage(Enum):
    """Which 4-bit weights a TFLite file stores packed, two to a byte; the others are stored as int8, same values.

    FAST: where XNNPACK has a 4-bit kernel: fully connected layers with an even number of inputs, and 1x1 convolutions,
        which are written as such. LiteRT then computes every layer exactly and as fast as with 8 bits.
    PACKED: other convolutions too. LiteRT leaves XNNPACK for its built-in kernels there: the smallest file, results a
        step off here and there, and several times slower.
    OLD: what tflite-runtime 2.14 takes: convolutions, and linear layers written as 1x1 convolutions.
    NONE: nowhere, for runtimes without a 4-bit type.
    """

    FAST = "fast"
    PACKED = "packed"
    OLD = "old"
    NONE = "none"


class TfliteSink(Protocol):
    """What an operator's `to_tflite` row may ask of the TFLite exporter; the graph is quantized and NHWC.

    `edgeq.ops.tflite_forms` has what several rows share.

    Attributes:
        integer_ends: Whether the model's outputs are int8 codes.
        int4: Which 4-bit weights are stored packed.
    """

    integer_ends: bool
    int4: Int4Storage

    def tensor(self, name: str) -> Tensor:
        """Returns a tensor of the graph, or one that a row added."""
        ...

    def constant(self, stem: str, value: Array, quant: QuantParams | None = None) -> str:
        """Adds a constant and returns its name; int8 values with 4-bit parameters are packed in the file."""
        ...

    def activation(self, stem: str, shape: Sequence[int], quant: QuantParams | None, dtype: str = "int8") -> str:
        """Adds a tensor between two operators and returns its name."""
        ...

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        version: int = 1,
        clamp: Clamp | None = None,
        **options: Any,
    ) -> None:
        """Appends a builtin operator; `clamp` becomes its fused activation, or operators after it."""
        ...

    def clamp_between(self, x: str, y: str, codes: tuple[int, int]) -> None:
        """Clamps int8 codes between tensors of one quantization."""
        ...

    def redefine(self, name: str, quant: QuantParams) -> None:
        """Makes a float output of the graph an int8 one in the file."""
        ...

    def widen(self, node: Node) -> None:
        """Records that the 4-bit weights of a node are stored as int8."""
        ...

    def fix_batch(self, node: Node, why: str) -> None:
        """Makes the file one for batch 1 only, and says so in the export's summary."""
        ...

    def note(self, node: Node, text: str) -> None:
        """Records a sentence about a node for the export's summary."""
        ...

    def fail(self, node: Node, why: str) -> Exception:
        """Returns (does not raise) an error naming the node, its operator and the reason."""
        ...


class Operator(ABC):
    """One kind of node. Subclasses live one a file and are registered by `register`.

    Attributes:
        name: The `Node.op` it describes.
        attrs_type: Its attributes class.
        quant_rule: How its output is quantized.
        onnx_types: ONNX operator types that `from_onnx` understands.
    """

    name: ClassVar[str]
    attrs_type: ClassVar[type[Attrs]] = Attrs
    quant_rule: ClassVar[QuantRule] = QuantRule.OWN
    onnx_types: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        """Returns (shape, float dtype) of each output; raises GraphError when the inputs do not fit."""

    @abstractmethod
    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        """The float statement: input arrays in, output arrays out (float32, float64 inside where it matters)."""

    @abstractmethod
    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        """The integer statement, the oracle of every kernel: int8 codes in, int8 codes out.

        Quantization parameters are those of the graph's tensors. docs/arithmetic.md has the formulas.
        """

    @abstractmethod
    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        """The float statement of an NCHW graph in torch, differentiable; what rounds passes gradients straight through.

        Attributes stay what they are; everything that may be trained comes in as a value.
        """

    def fixed_range(self, node: Node) -> tuple[float, float] | None:
        """The real range of a FIXED operator's output, as (low, high) of codes -128 and 127 + 1."""
        return None

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        """Emits the graph node(s) for one ONNX node; raises through `source.fail` when it cannot."""
        raise source.fail(node, f"operator {self.name} has no ONNX importer")

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        """Emits the float ONNX node(s) for one node of an NCHW graph, reading and writing tensors by their names."""
        raise GraphError(f"{node.name}: operator {self.name} has no ONNX exporter")

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        """Emits the builtin operator(s) for one node of a quantized NHWC graph."""
        raise sink.fail(node, "it has no form there")

    def check_quant(self, node: Node, graph: Graph) -> None:
        """Raises GraphError when the quantization of a node of a quantized graph breaks the operator's rule."""
        if self.quant_rule is QuantRule.SAME:
            out = graph.quant(node.outputs[0])
            for name in node.inputs:
                if not out.same_as(graph.quant(name)):
                    raise GraphError(
                        f"{node.name}: {node.op} copies codes, so {name!r} and {node.outputs[0]!r} must have the same "
                        "quantization"
                    )

    def macs(self, node: Node, graph: Graph) -> int:
        """Multiply-accumulates at batch 1; 0 for operators that have none worth counting."""
        return 0


_REGISTRY: dict[str, Operator] = {}


def register(operator: type[Operator]) -> type[Operator]:
    """Class decorator: makes an operator known by its name."""
    if operator.name in _REGISTRY:
        raise GraphError(f"operator {operator.name} is registered twice")
    _REGISTRY[operator.name] = operator()
    return operator


def get(name: str) -> Operator:
    """Returns the operator of that name; raises GraphError when there is none."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise GraphError(f"no operator is named {name!r}; there are {', '.join(sorted(_REGISTRY))}") from None


def all_operators() -> list[Operator]:
    """Returns every registered operator, by name."""
    return [_REGISTRY[name] for name in sorted(_REGISTRY)]


def attrs_of(node: Node, kind: type[AttrsType]) -> AttrsType:
    """Returns the attributes of a node; raises GraphError when they are of another kind."""
    if not isinstance(node.attrs, kind):
        raise GraphError(f"{node.name}: {node.op} needs {kind.__name__}, got {type(node.attrs).__name__}")
    return node.attrs


def operand(values: Sequence[Array | None], index: int) -> Array:
    """Returns an input that must be present; raises GraphError when it is absent."""
    value = values[index] if index < len(values) else None
    if value is None:
        raise GraphError(f"input {index} is absent")
    return value


def torch_operand(values: Sequence[TorchTensor | None], index: int) -> TorchTensor:
    """Returns an input that must be present; raises GraphError when it is absent."""
    value = values[index] if index < len(values) else None
    if value is None:
        raise GraphError(f"input {index} is absent")
    return value


def torch_clamp(x: TorchTensor, clamp: Clamp) -> TorchTensor:
    """The fused activation of a torch tensor; x itself where there is none."""
    low, high = clamp
    if clamp == NO_CLAMP:
        return x
    if clamp == (0.0, math.inf):
        return x.relu()
    return x.clamp(None if math.isinf(low) else low, None if math.isinf(high) else high)


# --- the arithmetic that statements share (docs/arithmetic.md) ---


def round_half_even(x: Array) -> Array:
    """Rounds to the nearest integer, ties to even; keeps the dtype."""
    return np.rint(x)


def quantize(x: Array, quant: QuantParams) -> npt.NDArray[np.int8]:
    """clamp(rne(x / s) + z) in float32 with a true division; NaN becomes the zero point (the code of zero)."""
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = np.rint(np.asarray(x, dtype=np.float32) / _along_axis(quant.scale, quant, np.ndim(x)))
    zero = _along_axis(quant.zero_point, quant, np.ndim(x)).astype(np.float32)
    ratio = np.where(np.isnan(ratio), np.float32(0), ratio)
    # The clamp comes before the addition, where both bounds and the sum are small integers, exact in float32.
    low, high = np.float32(quant.qmin) - zero, np.float32(quant.qmax) - zero
    codes: npt.NDArray[np.int8] = (np.minimum(np.maximum(ratio, low), high) + zero).astype(np.int8)
    return codes


def dequantize(q: Array, quant: QuantParams) -> npt.NDArray[np.float32]:
    """(q - z) * s in float32 (the difference is an exact integer)."""
    zero = _along_axis(quant.zero_point, quant, np.ndim(q))
    difference = q.astype(np.int64) - zero
    result: npt.NDArray[np.float32] = difference.astype(np.float32) * _along_axis(quant.scale, quant, np.ndim(q))
    return result


def requantize(acc: Array, multiplier: Array, zero_point: int, qmin: int, qmax: int) -> npt.NDArray[np.int8]:
    """THE rounding rule: clamp(rne(float32(acc) * m) + z), clamped in float before z is added.

    Args:
        acc: int32 or int64 accumulators whose values fit 32 bits.
        multiplier: float32, broadcastable to acc.
        zero_point: Of the output.
        qmin: Smallest output code (with a fused activation: its lower bound as a code).
        qmax: Largest output code.
    """
    scaled = acc.astype(np.float32)
    scaled *= np.asarray(multiplier, dtype=np.float32)
    return requantize_real(scaled, zero_point, qmin, qmax)


def requantize_real(scaled: Array, zero_point: int, qmin: int, qmax: int) -> npt.NDArray[np.int8]:
    """clamp(rne(scaled) + z) of float32 values already in output steps, clamped in float before z is added.

    Overwrites `scaled`. After the clamp everything is an integer of at most 9 bits, exact in float32.
    """
    np.maximum(scaled, np.float32(qmin - zero_point), out=scaled)
    np.minimum(scaled, np.float32(qmax - zero_point), out=scaled)
    np.rint(scaled, out=scaled)
    scaled += np.float32(zero_point)
    return scaled.astype(np.int8)


def clamp_codes(clamp: Clamp, quant: QuantParams) -> tuple[int, int]:
    """Returns the code bounds of a fused activation: its real bounds quantized, within the type's range."""
    zero, scale = int(quant.zero_point), float(quant.scale)

    def code(bound: float, unbounded: int) -> int:
        if math.isinf(bound):
            return unbounded
        return int(min(max(np.rint(bound / scale) + zero, quant.qmin), quant.qmax))

    return code(clamp[0], quant.qmin), code(clamp[1], quant.qmax)


def conv_multiplier(graph: Graph, x: str, w: str, y: str) -> npt.NDArray[np.float32]:
    """m[c] = (s_x * s_w[c]) / s_y in float32, in that order; shape (channels,) or ()."""
    product = np.float32(graph.quant(x).scale) * graph.quant(w).scale.astype(np.float32)
    result: npt.NDArray[np.float32] = (product / np.float32(graph.quant(y).scale)).astype(np.float32)
    return result


def _along_axis(values: Array, quant: QuantParams, rank: int) -> Array:
    if quant.axis is None:
        return values
    return values.reshape([-1 if axis == quant.axis else 1 for axis in range(rank)])


# --- layout ---


def channel_axis(rank: int, layout: Layout) -> int:
    """Where the channels of an activation of that rank are: last, except axis 1 of rank >= 3 in NCHW."""
    return 1 if layout == "nchw" and rank >= 2 else rank - 1


def to_nchw(x: Array, layout: Layout) -> Array:
    """Returns a view of a rank-4 activation with channels on axis 1."""
    return x if layout == "nchw" else np.moveaxis(x, 3, 1)


def from_nchw(x: Array, layout: Layout) -> Array:
    """Inverse of `to_nchw`; contiguous."""
    return np.ascontiguousarray(x if layout == "nchw" else np.moveaxis(x, 1, 3))


def weight_to_oihw(w: Array, layout: Layout) -> Array:
    """Returns a view of convolution weights as [O, I/g, kh, kw]; an NHWC graph holds [O, kh, kw, I/g]."""
    return w if layout == "nchw" else np.moveaxis(w, 3, 1)


def nchw_shape(tensor: Tensor, layout: Layout, node: Node) -> tuple[int, int, int, int]:
    """Returns (n, c, h, w) of a rank-4 tensor; raises GraphError for another rank."""
    if len(tensor.shape) != 4:
        raise GraphError(f"{node.name}: {node.op} needs a rank-4 input, got shape {list(tensor.shape)}")
    n, a, b, c = tensor.shape
    return (n, a, b, c) if layout == "nchw" else (n, c, a, b)


def shape_from_nchw(n: int, c: int, h: int, w: int, layout: Layout) -> Shape:
    """Returns the shape in the graph's own layout."""
    return (n, c, h, w) if layout == "nchw" else (n, h, w, c)


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over height and width: kernel, strides, pads (top, left, bottom, right), dilations."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int, where: str) -> tuple[int, int]:
        """Returns the output height and width (floor); raises GraphError when the window does not fit."""
        sizes = []
        for axis, size in enumerate((height, width)):
            span = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            room = size + self.pads[axis] + self.pads[axis + 2] - span
            if room < 0:
                raise GraphError(f"{where}: a window of {span} does not fit {size} with padding {self.pads}")
            sizes.append(room // self.strides[axis] + 1)
        return sizes[0], sizes[1]

    def taps(self, padded: Array, out_height: int, out_width: int) -> list[list[Array]]:
        """Returns, for each kernel row and column, the strided view [n, c, out_h, out_w] of a padded NCHW array."""
        (sh, sw), (dh, dw) = self.strides, self.dilations
        return [
            [
                padded[
                    :,
                    :,
                    i * dh : i * dh + sh * (out_height - 1) + 1 : sh,
                    j * dw : j * dw + sw * (out_width - 1) + 1 : sw,
                ]
                for j in range(self.kernel[1])
            ]
            for i in range(self.kernel[0])
        ]

    def pad(self, x: Array, value: float) -> Array:
        """Pads height and width of an NCHW array with `value`."""
        top, left, bottom, right = self.pads
        if not any(self.pads):
            return x
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)
