"""Writes a TFLite model: tensors, operators and buffers, over the schema bindings of ai-edge-litert."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeq.errors import BackendError, GraphError, QuantizationError
from edgeq.ir import BATCH, Graph, Node, QuantParams, Tensor
from edgeq.ir.int4 import pack_int4
from edgeq.ir.names import take_name
from edgeq.ir.tensor import Array
from edgeq.ops.base import NO_CLAMP, Clamp, Int4Storage, clamp_codes

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16
"""Constants start at multiples of this (force_align in the schema), so that kernels read them in place."""

METADATA_NAME = "edgeq"
"""Name of the metadata buffer with what edgeq knows of the model, UTF-8 JSON."""

OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}
"""The table of options that each operator code takes; the others take none."""

_ENUMS = {"padding": "Padding", "fused_activation_function": "ActivationFunctionType"}

# The real bounds of the activations that an operator may carry, and their names in the schema.
_FUSED = (
    ("NONE", NO_CLAMP),
    ("RELU", (0.0, np.inf)),
    ("RELU6", (0.0, 6.0)),
    ("RELU_N1_TO_1", (-1.0, 1.0)),
)


def schema() -> Any:
    """Returns the schema bindings (flatbuffers' object interface).

    They are those of ai-edge-litert: newer than the `tflite` package's, with classes that pack
    (that package only reads), and what runs the file comes with them.

    Raises:
        BackendError: If ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise BackendError(
            "Writing or reading a .tflite file needs the schema of ai-edge-litert, which is not installed: "
            "pip install 'edgeq[tflite]' or pip install ai-edge-litert."
        ) from None
    return schema_py_generated


def fused_codes(clamp: Clamp, quant: QuantParams) -> tuple[int, int]:
    """The codes to which TFLite clamps for a fused activation: its bounds rounded half away from zero."""
    scale, zero = float(quant.scale), int(quant.zero_point)

    def code(bound: float, unbounded: int) -> int:
        if np.isinf(bound):
            return unbounded
        steps = abs(np.float32(bound) / np.float32(scale))
        return int(min(max(zero + np.copysign(np.floor(steps + 0.5), bound), quant.qmin), quant.qmax))

    return code(clamp[0], quant.qmin), code(clamp[1], quant.qmax)


class ModelBuilder:
    """Collects the tensors and operators of one TFLite subgraph; an `edgeq.ops.base.TfliteSink`.

    Tensors of the graph appear when an operator first names them. The batch is 1 in the file's shapes and free in
    its shape signatures, which is how converters write it.

    Args:
        graph: Quantized and NHWC.
        integer_ends: Whether inputs and outputs are int8 codes.
        int4: Which 4-bit weights are stored packed.
    """

    def __init__(self, graph: Graph, integer_ends: bool, int4: Int4Storage = Int4Storage.FAST) -> None:
        self.graph = graph
        self.integer_ends = integer_ends
        self.int4 = int4
        self.notes: list[str] = []
        self.fixed_batch = False
        self.widened: list[str] = []
        self.operators: dict[str, int] = {}
        self._schema = schema()
        self._quantization_type = _shared_quantization(self._schema)
        self._names: set[str] = set(graph.tensors)
        self._index: dict[str, int] = {}
        self._own: dict[str, Tensor] = {}
        self._tensors: list[Any] = []
        self._buffers: list[npt.NDArray[np.uint8] | None] = [None]
        self._buffer_of: dict[bytes, int] = {}
        self._codes: list[tuple[str, int]] = []
        self._ops: list[Any] = []

    # --- what operators ask for ---

    def tensor(self, name: str) -> Tensor:
        """Returns a tensor of the graph, or one that a row added, as it is in the file."""
        return self._own[name] if name in self._own else self.graph.tensor(name)

    def fail(self, node: Node, why: str) -> Exception:
        """Returns (does not raise) an error naming the node, its operator and the reason."""
        return QuantizationError(
            f"{node.name}: {node.op} cannot be written as TFLite: {why}. Export to .edgeq or ONNX instead "
            "(--to edgeq,onnx)."
        )

    def note(self, node: Node, text: str) -> None:
        """Records a sentence about a node for the export's summary."""
        self.notes.append(f"{node.name}: {text}")

    def widen(self, node: Node) -> None:
        """Records that the 4-bit weights of a node are stored as int8."""
        self.widened.append(node.name)

    def fix_batch(self, node: Node, why: str) -> None:
        """Makes the file one for batch 1 only."""
        self.fixed_batch = True
        self.note(node, f"the file takes batch 1 only: {why}")

    def constant(self, stem: str, value: Array, quant: QuantParams | None = None) -> str:
        """Adds a constant and returns its name; int8 values with 4-bit parameters are packed in the file."""
        return self._add(Tensor.constant(self._fresh(stem), value, quant))

    def activation(self, stem: str, shape: Sequence[int], quant: QuantParams | None, dtype: str = "int8") -> str:
        """Adds a tensor between two operators and returns its name."""
        return self._add(Tensor(self._fresh(stem), tuple(shape), dtype, quant))

    def redefine(self, name: str, quant: QuantParams) -> None:
        """Makes a float tensor of the graph an int8 one in the file."""
        self._own[name] = self.graph.tensor(name).with_(dtype="int8", quant=quant)

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
        """Appends an operator.

        Args:
            op: Name of the builtin operator.
            inputs: Tensor names; "" for an absent one.
            outputs: Tensor names.
            version: Of the operator.
            clamp: Real bounds of the output of an operator that can fuse an activation; what no fused
                activation expresses becomes a MAXIMUM and a MINIMUM after it.
            **options: Fields of the operator's options by their name in the schema; enumerations by name.
        """
        if clamp is None:
            self._emit(op, inputs, outputs, version, options)
            return
        name = outputs[0]
        quant = self.tensor(name).quant
        assert quant is not None
        wanted = clamp_codes(clamp, quant)
        for fused, bounds in _FUSED:
            if fused_codes(bounds, quant) == wanted:
                self._emit(op, inputs, outputs, version, {**options, "fused_activation_function": fused})
                return
        raw = self.activation(f"{name}.preactivation", self.tensor(name).shape, quant)
        self._emit(op, inputs, [raw], version, {**options, "fused_activation_function": "NONE"})
        self.clamp_between(raw, name, wanted)

    def clamp_between(self, x: str, y: str, codes: tuple[int, int]) -> None:
        """Clamps int8 codes: MAXIMUM, MINIMUM or both between tensors of one quantization."""
        tensor = self.tensor(y)
        steps = [
            (op, code) for op, code, limit in (("MAXIMUM", codes[0], -128), ("MINIMUM", codes[1], 127)) if code != limit
        ] or [("MINIMUM", 127)]
        for position, (op, code) in enumerate(steps):
            last = position + 1 == len(steps)
            out = y if last else self.activation(f"{y}.clamped", tensor.shape, tensor.quant)
            bound = self.constant(f"{y}.bound", np.full((1,), code, np.int8), tensor.quant)
            self._emit(op, [x, bound], [out], 2, {})
            x = out

    # --- the file ---

    def finish(self, metadata: Mapping[str, Any] | None) -> bytes:
        """Returns the file; the same graph gives the same bytes.

        Args:
            metadata: What the metadata buffer holds, or None for no such buffer.
        """
        import flatbuffers

        s = self._schema
        self._quantization_type.vectors.clear()
        inputs = [self._end(name, is_input=True) for name in self.graph.inputs]
        outputs = [self._end(name, is_input=False) for name in self.graph.outputs]
        subgraph = s.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = self._tensors
        subgraph.operators = [op for op, _ in sorted(self._ops, key=lambda item: item[1])]
        subgraph.inputs, subgraph.outputs = inputs, outputs
        model = s.ModelT()
        model.version = SCHEMA_VERSION
        model.description = "edgeq"
        model.subgraphs = [subgraph]
        model.operatorCodes = [self._operator_code(op, version) for op, version in self._codes]
        model.signatureDefs = [self._signature(inputs, outputs)]
        if metadata is not None:
            text = json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode()
            entry = s.MetadataT()
            entry.name, entry.buffer = METADATA_NAME, self._buffer(np.frombuffer(text, np.uint8))
            model.metadata = [entry]
        model.buffers = [_aligned_buffer(s, data) for data in self._buffers]
        constants = sum(data.size for data in self._buffers if data is not None)
        builder = flatbuffers.Builder(constants + (1 << 16))
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _emit(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], version: int, options: Mapping[str, Any]
    ) -> None:
        s = self._schema
        record = s.OperatorT()
        record.opcodeIndex = self._code(op, version)
        record.inputs = [self._tensor_index(name) if name else -1 for name in inputs]
        record.outputs = [self._tensor_index(name) for name in outputs]
        table = OPTIONS.get(op)
        if table is not None:
            record.builtinOptionsType = getattr(s.BuiltinOptions, table)
            record.builtinOptions = getattr(s, f"{table}T")()
        for field, value in options.items():
            if field in _ENUMS:
                value = getattr(getattr(s, _ENUMS[field]), value)
            elif field.endswith("_data_type"):
                value = getattr(s.TensorType, value)
            attribute = "".join(part.title() if i else part for i, part in enumerate(field.split("_")))
            if not hasattr(record.builtinOptions, attribute):
                raise GraphError(f"TFLite operator {op} has no option {field}")
            setattr(record.builtinOptions, attribute, value)
        self.operators[op] = self.operators.get(op, 0) + 1
        self._ops.append((record, len(self._ops)))

    def _end(self, name: str, *, is_input: bool) -> int:
        """Returns the tensor of a graph input or output; a float one with its QUANTIZE or DEQUANTIZE."""
        tensor = self.tensor(name)
        inside = self._tensor_index(name)
        if self.integer_ends or tensor.quant is None:
            return inside
        outside = self._tensor_index(self.activation(f"{name}.float", tensor.shape, None, "float32"))
        record = self._schema.OperatorT()
        op = "QUANTIZE" if is_input else "DEQUANTIZE"
        record.opcodeIndex = self._code(op, 1 if is_input else 2)
        record.inputs, record.outputs = ([outside], [inside]) if is_input else ([inside], [outside])
        record.builtinOptionsType = getattr(self._schema.BuiltinOptions, OPTIONS[op])
        record.builtinOptions = getattr(self._schema, f"{OPTIONS[op]}T")()
        self.operators[op] = self.operators.get(op, 0) + 1
        self._ops.append((record, -1 if is_input else len(self._ops)))
        return outside

    def _fresh(self, stem: str) -> str:
        return take_name(stem, self._names)

    def _add(self, tensor: Tensor) -> str:
        self._own[tensor.name] = tensor
        return tensor.name

    def _code(self, op: str, version: int) -> int:
        if (op, version) not in self._codes:
            self._codes.append((op, version))
        return self._codes.index((op, version))

    def _operator_code(self, op: str, version: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = getattr(self._schema.BuiltinOperator, op)
        # Readers older than the wide field look at this one, which holds 127 for what does not fit.
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        return code

    def _tensor_index(self, name: str) -> int:
        if name not in self._index:
            tensor = self.tensor(name)
            packed = tensor.quant is not None and tensor.quant.bits == 4
            record = self._schema.TensorT()
            record.name = name
            record.type = getattr(self._schema.TensorType, "INT4" if packed else tensor.dtype.upper())
            record.shape = [1 if size == BATCH else size for size in tensor.shape]
            if BATCH in tensor.shape:
                record.shapeSignature = list(tensor.shape)
            record.hasRank = True
            if tensor.quant is not None:
                record.quantization = self._quantization(tensor.quant)
            if tensor.data is not None:
                data = pack_int4(tensor.data) if packed else np.frombuffer(tensor.data.tobytes(), np.uint8)
                record.buffer = self._buffer(data)
            self._index[name] = len(self._tensors)
            self._tensors.append(record)
        return self._index[name]

    def _quantization(self, quant: QuantParams) -> Any:
        record = self._quantization_type()
        record.scale = np.atleast_1d(quant.scale).astype(np.float32)
        record.zeroPoint = np.atleast_1d(quant.zero_point).astype(np.int64)
        record.quantizedDimension = quant.axis or 0
        return record

    def _buffer(self, data: npt.NDArray[np.uint8]) -> int:
        key = data.tobytes()
        if key not in self._buffer_of:
            self._buffer_of[key] = len(self._buffers)
            self._buffers.append(data)
        return self._buffer_of[key]

    def _signature(self, inputs: list[int], outputs: list[int]) -> Any:
        s = self._schema

        def named(names: list[str], indices: list[int]) -> list[Any]:
            records = []
            for name, index in zip(names, indices, strict=True):
                record = s.TensorMapT()
                record.name, record.tensorIndex = name, index
                records.append(record)
            return records

        signature = s.SignatureDefT()
        signature.signatureKey = "serving_default"
        signature.subgraphIndex = 0
        signature.inputs = named(self.graph.inputs, inputs)
        signature.outputs = named(self.graph.outputs, outputs)
        return signature


def _aligned_buffer(s: Any, data: npt.NDArray[np.uint8] | None) -> Any:
    """A buffer record that packs its bytes at a multiple of BUFFER_ALIGNMENT."""

    class AlignedBuffer(s.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:
            if self.data is not None:
                # The vector's own start then needs no padding that would move its end.
                builder.Prep(BUFFER_ALIGNMENT, self.data.size)
            return super().Pack(builder)

    record = AlignedBuffer()
    record.data = data
    return record


def _shared_quantization(s: Any) -> Any:
    """A class of quantization records that share equal vectors.

    Zero points take eight bytes a channel, of weights and biases alike, and all are zero: as vectors of their own they
    would be a tenth of a file with 4-bit weights.
    """

    class SharedQuantization(s.QuantizationParametersT):  # type: ignore[misc]
        vectors: ClassVar[dict[bytes, int]] = {}

        def Pack(self, builder: Any) -> Any:
            scale, zero_point = self._vector(builder, self.scale), self._vector(builder, self.zeroPoint)
            s.QuantizationParametersStart(builder)
            s.QuantizationParametersAddScale(builder, scale)
            s.QuantizationParametersAddZeroPoint(builder, zero_point)
            s.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
            return s.QuantizationParametersEnd(builder)

        def _vector(self, builder: Any, values: npt.NDArray[Any]) -> int:
            key = values.dtype.char.encode() + values.tobytes()
            if key not in self.vectors:
                self.vectors[key] = builder.CreateNumpyVector(values)
            return self.vectors[key]

    return SharedQuantization
