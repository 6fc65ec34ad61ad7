"""Quantized ONNX models of other tools -> the quantized Graph: QDQ form and integer operators.

Every QuantizeLinear becomes a `fake_quant` node of a float graph, which `passes.absorb_quantization` turns into
integers; codes that flow between integer operators are followed by name. Scales, zero points and codes stay the model's
own. Unsigned codes become signed ones, 128 (or 8) less, with the zero point moved alike: the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeq.errors import ImportModelError
from edgeq.importers.from_onnx import OnnxImporter
from edgeq.importers.onnx_constants import fold
from edgeq.importers.onnx_file import read_model, tensor_value
from edgeq.importers.onnx_qoperators import CONTRIB, DYNAMIC, Rewriter, integer_operators
from edgeq.ir import Attrs, Graph, QuantParams
from edgeq.ir.int4 import unpack_int4, unpack_uint4
from edgeq.ir.tensor import Array
from edgeq.ops.fake_quant import FakeQuantAttrs
from edgeq.passes.absorb_quantization import QuantizedConstant, absorb_quantization

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_RESHAPES = ("Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""What may stand between a constant's DequantizeLinear and the layer that reads it."""

_ON_CODES = (
    "Clip",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Operators that mean the same on codes as on the real values."""

_WEIGHTED = ("conv", "conv_transpose", "linear")
_STORED = {"int8": (8, 0), "uint8": (8, -128), "int4": (4, 0), "uint4": (4, -8)}
"""Bits, and what makes a stored code a signed one, by element type."""


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A quantized model, read.

    Attributes:
        graph: Quantized, NCHW.
        notes: (node, sentence) pairs: where the graph does not do literally what the file says.
    """

    graph: Graph
    notes: tuple[tuple[str, str], ...]


def is_quantized(source: Any) -> bool:
    """Whether an ONNX model (as `load` takes it) holds quantized operators."""
    types = {node.op_type for node in read_model(source).graph.node}
    return bool(types & {*_QDQ, *integer_operators(), *DYNAMIC})


def load(source: Any, name: str | None = None, samples: Mapping[str, Array] | None = None) -> QuantizedModel:
    """Reads a quantized ONNX model.

    Args:
        source: A path, the bytes of a file, or an onnx.ModelProto; opset 13 or newer.
        name: The graph's name; else the model's own.
        samples: A batch of float32 inputs by name, for models that leave tensors in float which edgeq computes in
            integers (NNCF's do: the last layer's output, what a hard-swish reads): their scales are found from it.

    Raises:
        UnsupportedOperatorError: If an operator is not supported, naming node, operator and what is.
        ImportModelError: If the model is malformed or cannot be expressed in integers, naming the node.
    """
    model = read_model(source)
    four_bits = _widen_four_bits(model)
    _rewrite(model)
    importer = _QuantizedImporter(model, name or model.graph.name or "model", four_bits)
    graph = importer.run()
    with np.errstate(all="ignore"):  # Numbers that are not finite are found where they become codes or scales.
        absorbed = absorb_quantization(graph, importer.integers, samples)
    return QuantizedModel(absorbed.graph, (*importer.notes, *absorbed.notes))


# --- the file ---


def _widen_four_bits(model: Any) -> set[str]:
    """Stores 4-bit constants as 8-bit ones, in place; returns their names."""
    import onnx

    kinds = {onnx.TensorProto.INT4: onnx.TensorProto.INT8, onnx.TensorProto.UINT4: onnx.TensorProto.UINT8}
    found: set[str] = set()

    def widen(tensor: Any, name: str) -> None:
        if tensor.data_type not in kinds:
            return
        where = f"constant {name!r}"
        size = int(np.prod(list(tensor.dims), dtype=object))
        packed = tensor.raw_data or bytes(value & 0xFF for value in tensor.int32_data)
        if size < 0 or len(packed) != -(-size // 2) or any(value >> 8 not in (0, -1) for value in tensor.int32_data):
            raise ImportModelError(f"{where} of shape {list(tensor.dims)} has {len(packed)} bytes; the file is damaged")
        pairs = np.frombuffer(packed, np.uint8)
        unpack = unpack_int4 if tensor.data_type == onnx.TensorProto.INT4 else unpack_uint4
        tensor.data_type = kinds[tensor.data_type]
        tensor.ClearField("int32_data")
        tensor.raw_data = unpack(pairs, size).tobytes()
        found.add(name)

    for tensor in model.graph.initializer:
        widen(tensor, tensor.name)
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.HasField("t") and node.output:
                    widen(attribute.t, node.output[0])
    return found


def _rewrite(model: Any) -> None:
    """Makes integer operators float ones between DequantizeLinear and QuantizeLinear, in place."""
    import onnx

    rewritten = {*integer_operators(), *DYNAMIC}
    if not any(node.op_type in rewritten or node.domain == CONTRIB for node in model.graph.node):
        return
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output:
            stored.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.HasField("t"))

    def constant(name: str) -> Array | None:
        return tensor_value(stored[name], "initializer") if name in stored else None

    taken = {*stored, *(info.name for info in model.graph.input)}
    taken.update(name for node in model.graph.node for name in (*node.input, *node.output))
    rewriter = Rewriter(constant, taken)
    for node in model.graph.node:
        rewriter.add(node)
    del model.graph.node[:]
    model.graph.node.extend(rewriter.nodes)
    for name, value in rewriter.initializers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))


# --- the walk ---


@dataclass(frozen=True, slots=True)
class _Codes:
    """A value that holds codes.

    Attributes:
        real: The tensor of the float graph that holds what they stand for.
        quant: How; None until a DequantizeLinear tells.
        offset: What makes a stored code a signed one.
    """

    real: str
    quant: QuantParams | None
    offset: int


@dataclass(frozen=True, slots=True)
class _Index:
    """Codes turned into an index: stored code + shift, shift having one value or one a channel."""

    codes: _Codes
    shift: Array


@dataclass(frozen=True, slots=True)
class _Dequantized:
    """A dequantized constant: real = steps * scale, in any shape that broadcasts alike."""

    steps: Array
    scale: Array
    zero_point: int
    bits: int
    per_channel: bool


class _QuantizedImporter(OnnxImporter):
    """Adds the meaning of QuantizeLinear, DequantizeLinear and codes.

    Attributes:
        four_bits: Constants that were stored in 4 bits.
        codes: Values that hold codes.
        indices: Codes on their way to a table.
        dequantized: Values that are dequantized constants.
        integers: The integers behind the graph's constants.
    """

    def __init__(self, model: Any, name: str, four_bits: set[str]) -> None:
        super().__init__(model, name)
        self.four_bits = four_bits
        self.codes: dict[str, _Codes] = {}
        self.indices: dict[str, _Index] = {}
        self.dequantized: dict[str, _Dequantized] = {}
        self.integers: dict[str, QuantizedConstant] = {}
        self.output_names = {info.name for info in model.graph.output}
        self.readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for source in node.input:
                self.readers.setdefault(source, []).append(node)

    # --- the ends ---

    def _inputs(self) -> None:
        """Inputs may be int8 or uint8 codes."""
        import onnx

        for info in self.model.graph.input:
            kind = info.type.tensor_type
            stored = {onnx.TensorProto.INT8: 0, onnx.TensorProto.UINT8: -128}.get(kind.elem_type)
            if stored is not None and info.name not in self.known:
                kind.elem_type = onnx.TensorProto.FLOAT
                self.codes[info.name] = _Codes(info.name, None, stored)
        super()._inputs()

    def _outputs(self) -> None:
        """Outputs may be codes: they are named as such."""
        for name in self.output_names:
            if name in self.codes and self.codes[name].real != name:
                self.aliases[name] = self.codes[name].real
            if name in self.codes and self.codes[name].quant is None:
                raise ImportModelError(
                    f"output {name!r} holds codes whose scale the model does not say; end it with a DequantizeLinear"
                )
        super()._outputs()

    # --- nodes ---

    def _node(self, node: Any) -> None:
        if node.op_type in _QDQ and node.domain in ("", "ai.onnx"):
            resolved = self._resolved(node)
            self.current = resolved
            try:
                self._quantize(resolved) if node.op_type == "QuantizeLinear" else self._dequantize(resolved)
            except (IndexError, TypeError, ValueError) as error:
                raise self.fail(node, f"its inputs or attributes are malformed ({error})") from None
            return
        if any(name in self.codes or name in self.indices for name in node.input):
            self._on_codes(self._resolved(node))
            return
        if node.op_type in ("Max", "Min") and node.op_type not in self.rows:
            node = self._as_clip(self._resolved(node))
        self._real_node(node)

    def _real_node(self, node: Any) -> None:
        super()._real_node(node)
        source = node.input[0] if node.input else ""
        if node.op_type in ("Cast", "Identity") and source in self.four_bits and node.output[0] in self.known:
            self.four_bits.add(node.output[0])
        if node.op_type in _RESHAPES and source in self.dequantized and node.output[0] in self.known:
            self._follow(node, self.dequantized[source])

    def _follow(self, node: Any, value: _Dequantized) -> None:
        """Moves the integers of a constant as the node moves its real values."""
        others = [self.known[name][0] if name else None for name in node.input[1:]]
        attributes = self._attributes(node)
        moved = []
        for part in (value.steps, value.scale):
            found = fold(node.op_type, [part, *others], attributes, 1)
            moved.append(part if found is None else found[0])
        self.dequantized[node.output[0]] = replace(value, steps=moved[0], scale=moved[1])

    def _as_clip(self, node: Any) -> Any:
        """Max or Min of an activation and a number, which is a Clip with one bound."""
        import onnx

        if len(node.input) != 2:
            return node
        constants = [self.constant_input(node, index) for index in range(2)]
        bounds = [value for value in constants if value is not None and value.size == 1]
        if len(bounds) != 1 or constants.count(None) != 1:
            return node
        activation, bound = (node.input[i] for i in ((1, 0) if constants[0] is not None else (0, 1)))
        operands = [activation, bound] if node.op_type == "Max" else [activation, "", bound]
        return onnx.helper.make_node("Clip", operands, list(node.output), node.name)

    # --- rounding ---

    def _parameters(self, node: Any, offset_known: int | None) -> tuple[QuantParams, int]:
        """Reads scale and zero point of an activation; returns them for signed codes, and the offset to these."""
        scale = self.require_constant(node, 1, "scale").astype(np.float32).reshape(-1)
        zero = self.constant_input(node, 2)
        if len(node.input) > 2 and node.input[2] and zero is None:
            raise self.fail(node, "its zero point must be constant")
        if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
            raise self.fail(node, "its scale is not a finite positive number")
        if scale.size == 0 or np.any(scale != scale[0]) or (zero is not None and np.any(zero != zero.reshape(-1)[0])):
            raise self.fail(
                node, "the scales or zero points of an activation differ by channel; quantize activations per tensor"
            )
        if zero is None:
            kind = self._kind_without_zero(node, offset_known)
            stored = 0
        else:
            kind = zero.dtype.name
            if node.input[2] in self.four_bits:
                kind = kind.replace("8", "4")
            stored = int(zero.reshape(-1)[0])
        if kind not in _STORED:
            raise self.fail(node, f"it quantizes to {kind}; edgeq has 8 and 4 bits")
        bits, offset = _STORED[kind]
        quant = QuantParams.per_tensor(float(scale[0]), stored + offset, bits)
        if not quant.qmin <= int(quant.zero_point) <= quant.qmax:
            raise self.fail(node, f"its zero point {stored} is not a code of {kind}")
        return quant, offset

    def _kind_without_zero(self, node: Any, offset_known: int | None) -> str:
        import onnx

        if offset_known is not None:
            return "uint8" if offset_known == -128 else "uint4" if offset_known == -8 else "int8"
        chosen = int(self.attribute(node, "output_dtype", 0)) or onnx.TensorProto.UINT8
        name: str = onnx.TensorProto.DataType.Name(chosen)
        return name.lower()

    def _real_name(self, codes: str) -> str:
        """A name for what codes stand for: the model's output, else the shortest of the codes' and readers' names."""
        found = [codes] + [str(n.output[0]) for n in self.readers.get(codes, []) if n.op_type == "DequantizeLinear"]
        found = [name for name in found if name not in self.graph.tensors]
        outputs = [name for name in found if name in self.output_names]
        return (outputs or sorted(found, key=len) or [self._fresh(codes)])[0]

    def _quantize(self, node: Any) -> None:
        x, out = node.input[0], node.output[0]
        value = self.constant_input(node, 0)
        if value is not None:
            self._quantize_constant(node, value)
            return
        if x in self.codes or x not in self.graph.tensors:
            raise self.fail(node, f"its input {x!r} is not a real activation")
        quant, offset = self._parameters(node, None)
        real = self._real_name(out)
        self.emit("fake_quant", self._fresh(f"{out}.round"), [x], [real], FakeQuantAttrs(quant))
        self.codes[out] = _Codes(real, quant, offset)

    def _quantize_constant(self, node: Any, value: Array) -> None:
        """A float constant that the model quantizes: its codes become the constant."""
        scale, zero = self._broadcast_parameters(node, value, 1)
        if zero is None:
            zero = np.zeros((), np.uint8)
        narrow = len(node.input) > 2 and node.input[2] in self.four_bits
        kind = zero.dtype.name.replace("8", "4") if narrow else zero.dtype.name
        if kind not in _STORED:
            raise self.fail(node, f"it quantizes to {kind}; edgeq has 8 and 4 bits")
        bits, offset = _STORED[kind]
        low = -(1 << (bits - 1)) - offset
        codes = np.clip(np.rint(value.astype(np.float32) / scale) + zero, low, low + (1 << bits) - 1).astype(zero.dtype)
        self.known[node.output[0]] = (codes, codes)
        if bits == 4:
            self.four_bits.add(node.output[0])

    def _dequantize(self, node: Any) -> None:
        source, out = node.input[0], node.output[0]
        value = self.constant_input(node, 0)
        if value is not None:
            self._dequantize_constant(node, value)
            return
        codes = self.codes.get(source)
        if codes is None:
            raise self.fail(node, f"its input {source!r} holds no codes")
        quant, offset = self._parameters(node, codes.offset)
        if offset != codes.offset and codes.quant is not None:
            raise self.fail(node, "its zero point has another type than the codes")
        if codes.quant is None:
            # An input of the model, or what a table gave: now it is known what the codes mean.
            real = self._real_name(source) if codes.real == source else self._fresh(f"{codes.real}.real")
            if real in self.graph.tensors:
                real = out
            self.emit("fake_quant", self._fresh(f"{out}.round"), [codes.real], [real], FakeQuantAttrs(quant))
            codes = self.codes[source] = _Codes(real, quant, offset)
        elif not codes.quant.same_as(quant):
            raise self.fail(
                node, f"it reads codes that were made with another scale or zero point ({codes.quant} and {quant})"
            )
        if codes.real != out:
            self.aliases[out] = codes.real

    def _broadcast_parameters(self, node: Any, value: Array, default_axis: int) -> tuple[Array, Array | None]:
        """Scale and zero point of a constant, of a shape that broadcasts with it."""
        scale = self.require_constant(node, 1, "scale").astype(np.float32)
        zero = self.constant_input(node, 2)
        if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
            raise self.fail(node, "a scale is not a finite positive number")
        axis = int(self.attribute(node, "axis", default_axis))
        block = int(self.attribute(node, "block_size", 0))

        def spread(array: Array) -> Array:
            if array.size == 1:
                return array.reshape(())
            if value.ndim == 0 or not -value.ndim <= axis < value.ndim:
                raise self.fail(node, f"axis {axis} is none of {list(value.shape)}")
            if block and array.ndim == value.ndim:
                if not 0 < block <= value.shape[axis]:
                    raise self.fail(node, f"blocks of {block} do not fit {list(value.shape)}")
                wide = np.repeat(array, block, axis=axis)
                return np.take(wide, np.arange(value.shape[axis]), axis=axis)
            if array.shape != (value.shape[axis],):
                raise self.fail(node, f"{array.size} scales do not fit axis {axis} of {list(value.shape)}")
            return array.reshape([-1 if i == axis % value.ndim else 1 for i in range(value.ndim)])

        return spread(scale), None if zero is None else spread(zero)

    def _dequantize_constant(self, node: Any, value: Array) -> None:
        if value.dtype.name not in ("int8", "uint8", "int32"):
            raise self.fail(node, f"it dequantizes {value.dtype.name}; edgeq has 8 and 4 bits, and 32 for biases")
        scale, zero = self._broadcast_parameters(node, value, 1)
        if zero is not None and zero.dtype != value.dtype:
            raise self.fail(node, "its zero point has another type than the codes")
        steps = value.astype(np.int64) - (0 if zero is None else zero.astype(np.int64))
        if value.dtype == np.int32 and np.any(np.abs(steps) >= 1 << 31):
            raise self.fail(node, "codes less their zero point do not fit 32 bits")
        real = (steps.astype(np.float32) * scale).astype(np.float32)
        bits = 32 if value.dtype == np.int32 else 4 if node.input[0] in self.four_bits else 8
        offset = 0 if value.dtype != np.uint8 else -8 if bits == 4 else -128
        origin = 0 if zero is None or zero.size > 1 else int(zero.reshape(-1)[0])
        out = node.output[0]
        self.known[out] = (real, real)
        shown = np.broadcast_to(scale, value.shape)
        self.dequantized[out] = _Dequantized(steps.astype(np.int32), shown, origin + offset, bits, scale.ndim > 0)

    # --- codes ---

    def _on_codes(self, node: Any) -> None:
        """An operator that reads codes: moved like the real values, or looked up in a table."""
        if node.op_type in ("Cast", "Add", "Gather") and self._towards_table(node):
            return
        sources = [self.codes[name] for name in node.input if name in self.codes]
        if node.op_type not in _ON_CODES or not sources:
            raise self.fail(
                node,
                "it computes on codes themselves, which edgeq does not follow; put it between DequantizeLinear and "
                "QuantizeLinear",
            )
        first = sources[0]
        for other in sources[1:]:
            alike = first.quant is other.quant or (first.quant is not None and first.quant.same_as(other.quant))
            if not alike or first.offset != other.offset:
                raise self.fail(node, "it joins codes of different scales")
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self.codes:
                copy.input[index] = self.codes[name].real
        if node.op_type in ("Clip", "Pad"):
            self._real_bounds(node, copy, first)
        for index, name in enumerate(node.output):
            copy.output[index] = self._real_name(name) if name else ""
        super()._node(copy)
        for name, real in zip(node.output, copy.output, strict=True):
            if name:
                self.codes[name] = _Codes(self.aliases.get(real, real), first.quant, first.offset)

    def _real_bounds(self, node: Any, copy: Any, codes: _Codes) -> None:
        """Replaces bounds or a border that are codes by what they stand for."""
        positions = (1, 2) if node.op_type == "Clip" else (2,)
        while len(copy.input) <= positions[-1]:
            copy.input.append("")
        for position in positions:
            value = self.constant_input(node, position)
            if value is None and (node.op_type == "Clip" or (position < len(node.input) and node.input[position])):
                continue
            if codes.quant is None:
                raise self.fail(node, "it needs the scale of its codes, which the model does not say")
            code = int((np.zeros(1) if value is None else value).reshape(-1)[0]) + codes.offset
            real = np.float32((code - int(codes.quant.zero_point)) * float(codes.quant.scale))
            name = self._fresh(f"{node.output[0]}.bound")
            self.known[name] = (np.asarray(real),) * 2
            copy.input[position] = name

    def _towards_table(self, node: Any) -> bool:
        """Follows Cast, Add and Gather from codes to a table; False when the node is something else."""
        if node.op_type == "Cast":
            codes = self.codes.get(node.input[0])
            if codes is None or codes.quant is None:
                return False
            self.indices[node.output[0]] = _Index(codes, np.zeros((), np.int64))
            return True
        if node.op_type == "Add":
            which = 0 if node.input[0] in self.indices else 1
            value = self.constant_input(node, 1 - which)
            index = self.indices.get(node.input[which])
            if index is None or value is None or value.dtype.kind != "i":
                return False
            self.indices[node.output[0]] = replace(index, shift=index.shift + value.astype(np.int64))
            return True
        index, entries = self.indices.get(node.input[1]), self.constant_input(node, 0)
        if index is None:
            return False
        if entries is None or entries.ndim != 1 or entries.dtype.name not in ("int8", "uint8"):
            raise self.fail(node, "a table of codes must be a constant of int8 or uint8 with one axis")
        self._table(node, index, entries)
        return True

    def _table(self, node: Any, index: _Index, entries: Array) -> None:
        real = index.codes.real
        shape = self.graph.tensor(real).shape
        if index.shift.size > 1:
            full = (1,) * (len(shape) - index.shift.ndim) + index.shift.shape
            if len(full) != len(shape) or full[1:2] != (index.shift.size,) or index.shift.size != shape[1]:
                raise self.fail(node, "its table must be one for all, or one a channel")
        quant = index.codes.quant
        assert quant is not None
        stored = np.arange(-128, 128) - index.codes.offset
        place = stored + index.shift.reshape(-1, 1)
        possible = slice(quant.qmin + 128, quant.qmax + 129)
        if place[:, possible].min() < 0 or place[:, possible].max() >= entries.size:
            raise self.fail(node, f"codes reach beyond the {entries.size} entries of its table")
        offset = _STORED[entries.dtype.name][1]
        table = (entries.astype(np.int16) + offset).astype(np.int8)[np.clip(place, 0, entries.size - 1)]
        out = node.output[0]
        name = self.name_of(node)
        constant = self.add_constant(f"{name}.table", table[0] if table.shape[0] == 1 else table)
        self.emit("lut", name, [real, constant], [out], Attrs())
        self.codes[out] = _Codes(out, None, offset)

    # --- the integers behind constants ---

    def emit(self, op: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Attrs) -> None:
        super().emit(op, name, inputs, outputs, attrs)
        node = self.current
        if op in _WEIGHTED:
            for index, source in enumerate(inputs[1:3], 1):
                found = self.dequantized.get(node.input[index]) if index < len(node.input) else None
                if source and found is not None:
                    self.integers[source] = self._layer_constant(node, op, index, found, source)
        elif op in ("add", "sub", "mul") and node.op_type != "Div":
            for source, given in zip(inputs, node.input, strict=False):
                found = self.dequantized.get(given)
                if found is not None and self.graph.constant(source) is not None:
                    steps = found.steps.reshape(self.graph.tensor(source).shape)
                    scale = found.scale.reshape(-1) if found.per_channel else found.scale.reshape(-1)[0]
                    self.integers[source] = QuantizedConstant(steps, scale, found.zero_point, found.bits)

    def _layer_constant(self, node: Any, op: str, index: int, found: _Dequantized, source: str) -> QuantizedConstant:
        """Weights with their output channels on axis 0, or a bias."""
        shape = self.graph.tensor(source).shape
        if index == 2:
            if node.op_type == "Gemm" and float(self.attribute(node, "beta", 1.0)) != 1.0:
                raise self.fail(node, "beta other than 1 is not supported for a quantized bias")
            steps, scale = (np.broadcast_to(part.reshape(-1), shape) for part in (found.steps, found.scale))
            return QuantizedConstant(steps, scale if found.per_channel else scale[0], 0, found.bits)
        if node.op_type == "Gemm" and float(self.attribute(node, "alpha", 1.0)) != 1.0:
            raise self.fail(node, "alpha other than 1 is not supported for quantized weights")
        steps, scale = (_as_stored(part, node, op, self, shape) for part in (found.steps, found.scale))
        rows = scale.reshape(shape[0], -1)
        if rows.size and np.any(rows != rows[:, :1]):
            raise self.fail(node, "its weights have several scales within an output channel; give each channel one")
        one = rows[:, 0] if found.per_channel else rows[0, 0]
        return QuantizedConstant(np.ascontiguousarray(steps), np.asarray(one, np.float32), 0, found.bits)


def _as_stored(value: Array, node: Any, op: str, source: OnnxImporter, shape: tuple[int, ...]) -> Array:
    """Turns an array shaped like a layer's ONNX weights to the shape that edgeq's graph has them in."""
    if op == "linear":
        turned = node.op_type == "MatMul" or not source.attribute(node, "transB", 0)
        return value.T if turned else value
    if op == "conv_transpose":
        groups = int(source.attribute(node, "group", 1))
        inputs, outputs, kh, kw = value.shape
        split = value.reshape(groups, inputs // groups, outputs, kh, kw).transpose(0, 2, 1, 3, 4)
        value = split.reshape(shape)
    return value
