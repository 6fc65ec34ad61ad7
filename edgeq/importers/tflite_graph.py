"""The graph that a TFLite file becomes: what the rows of `tflite_operators` ask for and add to.

The graph is float and NCHW. Every tensor that the file quantizes is followed by a `fake_quant` with its parameters,
and the integers of quantized constants are kept beside their real values: `passes.absorb_quantization` makes the
quantized graph of both. An image [N, H, W, C] of the file is held as [N, C, H, W] where operators look at its channels,
and as it is where its axes are reshaped; a transpose leads from one to the other, and `passes.channels_last` removes
them all from a usual convolutional network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgeq.errors import ImportModelError
from edgeq.exporters.tflite.builder import fused_codes
from edgeq.importers.tflite_file import FileOperator, FileTensor, TfliteFile
from edgeq.ir import BATCH, Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ir.names import take_name
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import NO_CLAMP, Clamp, Shape, clamp_codes
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.fake_quant import FakeQuantAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.transpose import TransposeAttrs
from edgeq.passes.absorb_quantization import QuantizedConstant

MAX_DIMENSION = 1 << 24
MAX_ACTIVATION = (1 << 31) - 1
"""Elements at batch 1: what a .edgeq file can describe."""

MAX_NUMBERS = 1024
"""Entries of an operand that holds axes, sizes or indices."""

MAX_FOLDED = 1 << 24
"""Elements of all constants that are computed from others."""

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)

_ACTIVATIONS: dict[int, Clamp] = {
    0: NO_CLAMP,
    1: (0.0, math.inf),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
"""Fused activations by their number in the schema."""


@dataclass(slots=True)
class Value:
    """An activation of the file.

    Attributes:
        shape: As the file has it, the batch axis free.
        quant: The parameters that it is rounded to; None for real numbers.
        plain: The tensor of the graph that holds it with the file's axes, or "".
        image: The tensor that holds it as [N, C, H, W], or "".
    """

    shape: Shape
    quant: QuantParams | None
    plain: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant of the file.

    Attributes:
        value: As stored, except that quantized numbers are real ones (float32).
        steps: Of a quantized constant: codes less their zero point, int32, else None.
        scale: float32, shape () or (n,).
        axis: Which axis has a scale an entry, or None.
        zero_point: What the codes are relative to, as a signed code; of a single scale.
        bits: 4, 8, 16 or 32, as stored.
    """

    value: Array
    steps: Array | None = None
    scale: Array = field(default_factory=lambda: np.ones((), np.float32))
    axis: int | None = None
    zero_point: int = 0
    bits: int = 32

    def changed(self, change: Callable[[Array], Array]) -> Constant:
        """Returns the constant with its elements moved by `change`; one scale an entry of axis 0 from then on."""
        steps = None if self.steps is None else np.ascontiguousarray(change(self.steps))
        return replace(self, value=np.ascontiguousarray(change(self.value)), steps=steps)


@dataclass(slots=True)
class TfliteSource:
    """The graph under construction, and where the tensors of the file are in it.

    Attributes:
        file: What is read.
        graph: What is built.
        values: The activations seen so far, by tensor number.
        known: Tensors that hang on constants and shapes alone, by number.
        integers: The codes behind the graph's constants, for `absorb_quantization`.
        made_by: The operator that makes each activation.
        indices: Codes on their way into a table, by tensor number: the activation, and what is added to its signed
            codes, one number or one a channel.
        notes: (node, sentence) pairs: where the graph does not do literally what the file says.
        taken: Names that no new tensor or node may have.
        fold_budget: Elements that may still be computed from constants.
    """

    file: TfliteFile
    graph: Graph
    values: dict[int, Value] = field(default_factory=dict)
    known: dict[int, Constant] = field(default_factory=dict)
    integers: dict[str, QuantizedConstant] = field(default_factory=dict)
    made_by: dict[int, FileOperator] = field(default_factory=dict)
    indices: dict[int, tuple[Value, Array]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    fold_budget: int = MAX_FOLDED

    # --- operands ---

    def has(self, node: FileOperator, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(node.inputs) and node.inputs[index] >= 0

    def is_constant(self, node: FileOperator, index: int) -> bool:
        """Whether an input is known without running the model."""
        return self.has(node, index) and self.constant(node, index) is not None

    def value(self, node: FileOperator, index: int = 0) -> Value:
        """Returns an input that is an activation; raises ImportModelError otherwise."""
        found = self.values.get(node.inputs[index]) if self.has(node, index) else None
        if found is None:
            state = "constant" if self.is_constant(node, index) else "absent or not computed before it"
            raise self.fail(node, f"its input {index} is {state}; it must be an activation")
        return found

    def constant(self, node: FileOperator, index: int) -> Constant | None:
        """Returns an input that is constant, else None."""
        if not self.has(node, index):
            return None
        number = node.inputs[index]
        if number not in self.known and self.file.tensors[number].data is not None:
            self.known[number] = constant_of(self.file.tensors[number])
        return self.known.get(number)

    def require(self, node: FileOperator, index: int, meaning: str) -> Constant:
        """Returns an input that must be constant; raises ImportModelError otherwise."""
        found = self.constant(node, index)
        if found is None:
            raise self.fail(node, f"its {meaning} (input {index}) must be constant")
        return found

    def numbers(self, node: FileOperator, index: int, meaning: str) -> list[int]:
        """Returns a constant input as a list of integers."""
        found = self.require(node, index, meaning)
        value = found.value if found.steps is None else found.steps
        if value.dtype.kind not in "iu" or value.size > MAX_NUMBERS:
            raise self.fail(node, f"its {meaning} (input {index}) must be a few integers")
        return [int(v) for v in value.reshape(-1)]

    def axis(self, node: FileOperator, axis: int, rank: int) -> int:
        """Returns an axis counted from the front; raises ImportModelError for the batch or one that is not there."""
        found = axis + rank if axis < 0 else axis
        if not 0 <= found < rank:
            raise self.fail(node, f"axis {axis} does not exist in {rank} axes")
        if found == 0:
            raise self.fail(node, "it works along the batch axis")
        return found

    def quant(self, node: FileOperator, output: int = 0) -> QuantParams | None:
        """Returns the parameters that the file gives an output."""
        return self.quant_of(self.file.tensors[node.outputs[output]])

    def quant_of(self, tensor: FileTensor) -> QuantParams | None:
        """Returns the parameters of an activation: int8, and uint8 with codes and zero point 128 less."""
        if tensor.element == "float32":
            return None
        if tensor.element not in ("int8", "uint8"):
            reason = "; 16-bit activations are not supported" if tensor.element == "int16" else ""
            raise ImportModelError(f"tensor {tensor.name!r} is an activation of type {tensor.element}{reason}")
        if tensor.scale is None or tensor.axis is not None:
            raise ImportModelError(f"tensor {tensor.name!r} is an {tensor.element} activation without a single scale")
        zero = int(tensor.zero_point[0]) - (128 if tensor.element == "uint8" else 0)
        if not -128 <= zero <= 127 or not tensor.scale[0] > 0:
            raise ImportModelError(
                f"tensor {tensor.name!r} has scale {tensor.scale[0]} and zero point {int(tensor.zero_point[0])}; the "
                "file is damaged"
            )
        return QuantParams.per_tensor(float(tensor.scale[0]), zero)

    # --- layout ---

    def image(self, value: Value) -> str:
        """Returns the tensor that holds a rank-4 activation as [N, C, H, W]."""
        if not value.image:
            value.image = self.step("transpose", f"{value.plain}.nchw", [value.plain], TransposeAttrs(TO_NCHW))
        return value.image

    def plain(self, value: Value) -> str:
        """Returns the tensor that holds an activation with the file's axes."""
        if not value.plain:
            value.plain = self.step("transpose", f"{value.image}.nhwc", [value.image], TransposeAttrs(TO_NHWC))
        return value.plain

    def held(self, value: Value, image: bool) -> str:
        """Returns the tensor that holds an activation in one of the two forms."""
        return self.image(value) if image else self.plain(value)

    def image_input(self, node: FileOperator, index: int = 0) -> Value:
        """Returns an input that must be an image; raises ImportModelError for another rank."""
        value = self.value(node, index)
        if len(value.shape) != 4:
            raise self.fail(node, f"its input must be an image [N, H, W, C], not {list(value.shape)}")
        return value

    # --- nodes ---

    def emit(
        self,
        op: str,
        node: FileOperator,
        inputs: Sequence[str],
        attrs: Attrs,
        *,
        image: bool,
        output: int = 0,
        clamp: Clamp = NO_CLAMP,
    ) -> None:
        """Appends the node that makes an output of an operator of the file.

        Args:
            op: Operator of the graph.
            node: Operator of the file.
            inputs: Tensors of the graph.
            attrs: Attributes of `op`.
            image: Whether its output is [N, C, H, W] where the file has [N, H, W, C].
            output: Which output.
            clamp: Bounds that follow it.
        """
        stem = self.file.tensors[node.outputs[output]].name or node.label
        out = self.step(op, stem, inputs, attrs)
        if clamp != NO_CLAMP:
            quant = self.quant(node, output)
            if quant is not None:
                out = self.step("fake_quant", f"{stem}.unclipped", [out], FakeQuantAttrs(quant))
            out = self.step("clip", f"{stem}.clip", [out], ClipAttrs(*clamp))
        self.define(node, output, out, image)

    def step(self, op: str, stem: str, inputs: Sequence[str], attrs: Attrs) -> str:
        """Appends a node between two tensors of the file and returns its output."""
        out = self.fresh(stem)
        node = Node(op, self.fresh(f"{stem}/{op}"), tuple(inputs), (out,), attrs)
        ((shape, _),) = get(op).infer(node, self.graph)
        if max(shape, default=1) > MAX_DIMENSION or math.prod(shape[1:]) > MAX_ACTIVATION:
            raise ImportModelError(f"tensor {out!r} of shape {list(shape)} is too large")
        self.graph.add_tensor(Tensor(out, shape))
        self.graph.nodes.append(node)
        return out

    def define(self, node: FileOperator, output: int, tensor: str, image: bool) -> None:
        """Makes a tensor of the graph an output of an operator of the file, rounded as the file says."""
        number = node.outputs[output]
        declared = self.file.tensors[number]
        if number in self.values or declared.data is not None or number in self.known:
            raise self.fail(node, f"its output {declared.name!r} is a constant or is defined twice")
        quant = self.quant_of(declared)
        if quant is not None:
            tensor = self.step("fake_quant", f"{tensor}.rounded", [tensor], FakeQuantAttrs(quant))
        shape = self.graph.tensor(tensor).shape
        shape = tuple(shape[axis] for axis in TO_NHWC) if image else shape
        self._compare(node, declared, shape)
        self.values[number] = Value(shape, quant, "" if image else tensor, tensor if image else "")
        self.made_by[number] = node

    def alias(self, node: FileOperator, value: Value) -> None:
        """Makes the output of an operator of the file another name of an activation."""
        number = node.outputs[0]
        if number in self.values or self.file.tensors[number].data is not None:
            raise self.fail(node, f"its output {self.file.tensors[number].name!r} is a constant or is defined twice")
        self.values[number] = value

    def keeps_codes(self, node: FileOperator, index: int = 0, output: int = 0) -> None:
        """Raises ImportModelError when an operator that copies codes has other parameters at its output."""
        before, after = self.quant_of(self.file.tensors[node.inputs[index]]), self.quant(node, output)
        if (before is None) != (after is None) or (before is not None and not before.same_as(after)):
            raise self.fail(node, "it copies codes, but its input and output are not quantized alike")

    def add_constant(self, stem: str, constant: Constant) -> str:
        """Adds a constant; the scales of a quantized one run along axis 0 (or it has one)."""
        value = constant.value.astype(np.float32) if constant.value.dtype.kind == "f" else constant.value
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise ImportModelError(f"constant {stem!r} holds NaN or infinity; the weights are damaged")
        name = self.graph.add_tensor(Tensor.constant(self.fresh(stem), value))
        if constant.steps is not None:
            self.integers[name] = QuantizedConstant(constant.steps, constant.scale, constant.zero_point, constant.bits)
        return name

    def clamp(self, node: FileOperator) -> Clamp:
        """Returns the real bounds of a fused activation, such that they round to TFLite's codes."""
        number = int(node.option("activation"))
        if number not in _ACTIVATIONS:
            raise self.fail(node, f"its fused activation (number {number} in the schema) is not supported")
        return self.bounds(_ACTIVATIONS[number], self.quant(node))

    def bounds(self, clamp: Clamp, quant: QuantParams | None) -> Clamp:
        """Returns real bounds that round to the codes which TFLite takes for those of an activation."""
        if quant is None:
            return clamp
        codes = fused_codes(clamp, quant)
        if codes == clamp_codes(clamp, quant):
            return clamp
        low, high = ((code - int(quant.zero_point)) * float(quant.scale) for code in codes)
        return low, high

    # --- names and errors ---

    def fresh(self, stem: str) -> str:
        """Returns an unused name."""
        return take_name(stem, self.taken)

    def fail(self, node: FileOperator, why: str) -> ImportModelError:
        """Returns (does not raise) an error naming an operator of the file and the reason."""
        return ImportModelError(f"node {node.label!r} ({node.op}): {why}")

    def finish(self) -> None:
        """Names the outputs as the file does; two that are one tensor, or an input, become two."""
        names: dict[str, str] = {}
        for number, name in self.file.outputs:
            if number not in self.values:
                raise ImportModelError(f"output {name!r} does not depend on the input, or no operator computes it")
            tensor = self.plain(self.values[number])
            if tensor in names or tensor in self.graph.inputs:
                target = ReshapeAttrs(self.graph.tensor(tensor).shape)
                tensor = self.step("reshape", f"{name}.identity", [tensor], target)
            names[tensor] = name
        self.graph.outputs = list(names.values())
        if not names or len(set(self.graph.outputs)) != len(names):
            raise ImportModelError("the model has no output, or two of the same name")

        def renamed(given: Sequence[str]) -> tuple[str, ...]:
            return tuple(names.get(name, name) for name in given)

        tensors = self.graph.tensors.values()
        self.graph.tensors = {t.name: t for t in (t.with_(name=names.get(t.name, t.name)) for t in tensors)}
        self.graph.nodes = [n.with_(inputs=renamed(n.inputs), outputs=renamed(n.outputs)) for n in self.graph.nodes]

    def _compare(self, node: FileOperator, declared: FileTensor, shape: Shape) -> None:
        """Raises ImportModelError when the file declares another shape than its operators make."""
        given = declared.signature
        # Nothing declared is nothing said: old converters leave shapes in the middle empty.
        if given and (len(given) != len(shape) or any(-1 != g != s for g, s in zip(given[1:], shape[1:], strict=True))):
            raise self.fail(
                node, f"it makes {shown(shape)}, but the file declares its output as {list(declared.shape)}"
            )


def shown(shape: Shape) -> str:
    """Returns a shape for the user, e.g. [N, 3, 3, 8]."""
    return "[" + ", ".join("N" if size == BATCH else str(size) for size in shape) + "]"


def constant_of(tensor: FileTensor) -> Constant:
    """Returns a constant of the file with its integers apart."""
    data = tensor.data
    assert data is not None
    if data.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return Constant(data.astype(np.float32))
    if tensor.scale is None or data.dtype.kind == "b":
        return Constant(data)
    kind = tensor.element
    bits = 4 if kind == "int4" else 8 * data.dtype.itemsize
    shape = [-1 if axis == tensor.axis else 1 for axis in range(data.ndim)]
    zero = tensor.zero_point[0] if tensor.axis is None else tensor.zero_point.reshape(shape)
    scale = tensor.scale[0] if tensor.axis is None else tensor.scale.reshape(shape)
    steps = data.astype(np.int64) - zero
    # What overflows is damaged, and found where it is used.
    with np.errstate(over="ignore"):
        real = (steps.astype(np.float64) * np.asarray(scale, np.float64)).astype(np.float32)
    offset = 128 if kind == "uint8" else 0
    held = np.asarray(tensor.scale[0] if tensor.axis is None else tensor.scale, np.float32)
    return Constant(
        real,
        np.clip(steps, -(1 << 31), (1 << 31) - 1).astype(np.int32),
        held,
        tensor.axis,
        int(tensor.zero_point[0]) - offset,
        bits,
    )
