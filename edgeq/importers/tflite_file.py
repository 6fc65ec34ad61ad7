"""Reads the tables of a .tflite file: tensors, constants, operators and ends, all checked before they are used."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ImportModelError
from edgeq.importers.flatbuffer import Table, damaged, root
from edgeq.importers.reading import read_limited
from edgeq.ir.int4 import unpack_int4
from edgeq.ir.tensor import Array

MAX_FILE_BYTES = 2**31 - 1
MAX_TENSORS = MAX_OPERATORS = MAX_BUFFERS = 1 << 16
MAX_OPERANDS = 1024
MAX_RANK = 6
CONSTANT_ELEMENTS_PER_BYTE = 16
"""Tensors may share a buffer, but not so often that the file blows up in memory."""

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3

ELEMENTS = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
"""Names of the element types by their number in the schema."""

_NUMPY_TYPES = ("float32", "float16", "int32", "uint8", "int64", "bool", "int16", "int8", "float64")

_BUILTIN_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM
MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS
SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN
EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2
GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG
SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT
UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU
SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE
MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5
SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO
RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE
RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
"""

BUILTINS = tuple(_BUILTIN_NAMES.split())
"""Names of the builtin operators by their number in the schema, as far as converters from TensorFlow write them."""

_PADDING = ("SAME", "VALID")
_WINDOW = {"padding": (0, "int8"), "stride_w": (1, "int32"), "stride_h": (2, "int32")}
_DILATION = ("dilation_w_factor", "dilation_h_factor")
_POOL = {**_WINDOW, "filter_width": (3, "int32"), "filter_height": (4, "int32"), "activation": (5, "int8")}
_RESIZE = {"align_corners": "bool", "half_pixel_centers": "bool"}

_OPTIONS: dict[str, dict[str, tuple[int, str]]] = {
    "ADD": {"activation": (0, "int8")},
    "AVERAGE_POOL_2D": _POOL,
    "CAST": {"to": (1, "int8")},
    "CONCATENATION": {"axis": (0, "int32"), "activation": (1, "int8")},
    "CONV_2D": {**_WINDOW, "activation": (3, "int8"), _DILATION[0]: (4, "int32"), _DILATION[1]: (5, "int32")},
    "DEPTHWISE_CONV_2D": {**_WINDOW, "activation": (4, "int8"), _DILATION[0]: (5, "int32"), _DILATION[1]: (6, "int32")},
    "DEPTH_TO_SPACE": {"block_size": (0, "int32")},
    "DIV": {"activation": (0, "int8")},
    "FULLY_CONNECTED": {"activation": (0, "int8"), "weights_format": (1, "int8"), "keep_num_dims": (2, "bool")},
    "GATHER": {"axis": (0, "int32"), "batch_dims": (1, "int32")},
    "GELU": {"approximate": (0, "bool")},
    "LEAKY_RELU": {"alpha": (0, "float32")},
    "MAX_POOL_2D": _POOL,
    "MEAN": {"keep_dims": (0, "bool")},
    "MUL": {"activation": (0, "int8")},
    "PACK": {"axis": (1, "int32")},
    "REDUCE_PROD": {"keep_dims": (0, "bool")},
    "RESIZE_BILINEAR": {name: (2 + i, kind) for i, (name, kind) in enumerate(_RESIZE.items())},
    "RESIZE_NEAREST_NEIGHBOR": {name: (i, kind) for i, (name, kind) in enumerate(_RESIZE.items())},
    "SOFTMAX": {"beta": (0, "float32")},
    "SPACE_TO_DEPTH": {"block_size": (0, "int32")},
    "STRIDED_SLICE": {
        "begin_mask": (0, "int32"),
        "end_mask": (1, "int32"),
        "ellipsis_mask": (2, "int32"),
        "new_axis_mask": (3, "int32"),
        "shrink_axis_mask": (4, "int32"),
        "offset": (5, "bool"),
    },
    "SUB": {"activation": (0, "int8")},
    "TRANSPOSE_CONV": {**_WINDOW, "activation": (3, "int8")},
    "UNPACK": {"axis": (1, "int32")},
}
"""Where the fields of an operator's options are, and their types."""

_VECTORS = {"RESHAPE": {"new_shape": 0}, "SQUEEZE": {"squeeze_dims": 0}}


@dataclass(frozen=True, slots=True, eq=False)
class FileTensor:
    """A tensor as the file declares it.

    Attributes:
        name: As in the file; neither unique nor always there.
        shape: As declared, at the batch size of the file.
        signature: The shape with -1 for what is free; `shape` where the file says nothing.
        element: One of ELEMENTS.
        scale: float32, shape (n,), or None for a tensor that is not quantized.
        zero_point: int64, shape (n,).
        axis: Which axis has a scale an entry; None for a single scale.
        data: The value of a constant as stored (4-bit codes one to an int8 element), else None.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    element: str
    scale: Array | None
    zero_point: Array
    axis: int | None
    data: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class FileOperator:
    """An operator as the file declares it.

    Attributes:
        op: Its builtin name, or "custom operator NAME".
        inputs: Tensor numbers; -1 for an absent one.
        outputs: Tensor numbers.
        label: What the user is shown: the name of its first output.
        options: Its table of options.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    label: str
    options: Table | None

    def option(self, name: str, default: Any = 0) -> Any:
        """Returns a field of the options by its name in the schema ("activation": fused_activation_function)."""
        field, kind = _OPTIONS[self.op][name]
        return default if self.options is None else self.options.scalar(field, kind, default)

    def numbers(self, name: str) -> list[int] | None:
        """Returns an option that is a list of numbers, or None where it is absent."""
        found = None if self.options is None else self.options.vector(_VECTORS[self.op][name], np.int32)
        return None if found is None or found.size > MAX_RANK + 2 else [int(v) for v in found]

    @property
    def padding(self) -> str:
        """SAME or VALID; raises ImportModelError for another number."""
        number = int(self.option("padding"))
        if not 0 <= number < len(_PADDING):
            raise damaged(f"{self.label} has padding {number}")
        return _PADDING[number]


@dataclass(frozen=True, slots=True, eq=False)
class TfliteFile:
    """The first subgraph of a .tflite file.

    Attributes:
        name: Of the subgraph.
        tensors: By number.
        operators: In execution order.
        inputs: (tensor number, name): the signature's name where there is one, else the tensor's.
        outputs: The same.
    """

    name: str
    tensors: list[FileTensor]
    operators: list[FileOperator]
    inputs: list[tuple[int, str]]
    outputs: list[tuple[int, str]]


def read_file(source: str | os.PathLike[str] | bytes) -> TfliteFile:
    """Reads a .tflite file.

    Args:
        source: A path, or the bytes of a file.

    Raises:
        ImportModelError: If it is missing, too large, damaged, or uses what edgeq does not read (sparse weights,
            variables).
    """
    data = source if isinstance(source, bytes) else read_limited(Path(source), MAX_FILE_BYTES, ".tflite")
    model = root(data, _IDENTIFIER)
    version = model.scalar(0, "uint32")
    if version != _SCHEMA_VERSION:
        raise ImportModelError(f"the .tflite file has schema version {version}; edgeq reads version {_SCHEMA_VERSION}")
    subgraphs = model.tables(2, MAX_OPERATORS, "subgraphs")
    if not subgraphs:
        raise damaged("it holds no subgraph")
    graph = subgraphs[0]
    buffers = model.tables(4, MAX_BUFFERS, "buffers")
    budget = CONSTANT_ELEMENTS_PER_BYTE * len(data) + (1 << 16)
    tensors = []
    for number, table in enumerate(graph.tables(0, MAX_TENSORS, "tensors")):
        tensor = _tensor(table, number, buffers, data)
        budget -= 0 if tensor.data is None else tensor.data.size
        if budget < 0:
            raise damaged("its constants share the same bytes again and again")
        tensors.append(tensor)
    codes = [_operator_name(code) for code in model.tables(1, MAX_OPERATORS, "operator codes")]
    tables = graph.tables(3, MAX_OPERATORS, "operators")
    operators = [_operator(table, index, codes, tensors) for index, table in enumerate(tables)]
    inputs, outputs = (_numbers(graph, field, len(tensors)) for field in (1, 2))
    named_inputs, named_outputs = _names(model, inputs, outputs, tensors)
    return TfliteFile(graph.text(4), tensors, operators, named_inputs, named_outputs)


def _operator_name(code: Table) -> str:
    # Files older than the wide field have only the narrow one; newer ones hold 127 there for what does not fit.
    number = max(int(code.scalar(3, "int32")), int(code.scalar(0, "int8")))
    if 0 <= number < len(BUILTINS) and BUILTINS[number] == "CUSTOM":
        return f"custom operator {code.text(1) or 'without a name'}"
    return BUILTINS[number] if 0 <= number < len(BUILTINS) else f"builtin operator {number}"


def _operator(table: Table, index: int, codes: list[str], tensors: list[FileTensor]) -> FileOperator:
    number = int(table.scalar(0, "uint32"))
    if number >= len(codes):
        raise damaged(f"operator {index} has code {number} of {len(codes)}")
    inputs, outputs = _numbers(table, 1, len(tensors), absent=True), _numbers(table, 2, len(tensors))
    label = (tensors[outputs[0]].name if outputs else "") or f"operator {index}"
    return FileOperator(codes[number], inputs, outputs, label, table.table(4))


def _numbers(table: Table, field: int, tensors: int, absent: bool = False) -> tuple[int, ...]:
    """Returns a vector of tensor numbers, checked."""
    found = table.vector(field, np.int32)
    if found is None:
        return ()
    if found.size > MAX_OPERANDS or np.any(found >= tensors) or np.any(found < (-1 if absent else 0)):
        raise damaged(f"a list of {found.size} tensors names one that is not among the {tensors} of the model")
    return tuple(int(v) for v in found)


def _names(
    model: Table, inputs: tuple[int, ...], outputs: tuple[int, ...], tensors: list[FileTensor]
) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Names the ends: as the one signature of the subgraph does if it names all, else as the tensors are named."""
    signatures = [s for s in model.tables(7, MAX_OPERANDS, "signatures") if s.scalar(4, "uint32") == 0]
    found = []
    for field, ends in ((0, inputs), (1, outputs)):
        names = {number: tensors[number].name for number in ends}
        if len(signatures) == 1:
            pairs = signatures[0].tables(field, MAX_OPERANDS, "signature entries")
            given = {int(pair.scalar(1, "uint32")): pair.text(0) for pair in pairs}
            if set(ends) <= given.keys() and len({given[n] for n in ends}) == len(set(ends)) and all(given.values()):
                names = given
        found.append([(number, names[number]) for number in ends])
    return found[0], found[1]


# --- tensors ---


def _tensor(table: Table, number: int, buffers: list[Table], data: bytes) -> FileTensor:
    name = table.text(3)
    where = f"tensor {name or number!r}"
    shape = _shape(table, 0, where) or ()
    signature = _shape(table, 7, where)
    code = int(table.scalar(1, "int8"))
    if not 0 <= code < len(ELEMENTS):
        raise ImportModelError(f"{where} has elements of type {code}, which edgeq does not know")
    if table.scalar(5, "bool"):
        raise ImportModelError(f"{where} is a variable: models that keep state between runs are not supported")
    if table.table(6) is not None:
        raise ImportModelError(f"{where} is stored sparsely; convert the model without sparsity")
    scale, zero_point, axis = _quantization(table.table(4), shape, where)
    value = _constant(table, buffers, data, ELEMENTS[code], shape, where)
    held = shape if signature is None or len(signature) != len(shape) else signature
    return FileTensor(name, shape, held, ELEMENTS[code], scale, zero_point, axis, value)


def _shape(table: Table, field: int, where: str) -> tuple[int, ...] | None:
    found = table.vector(field, np.int32)
    if found is None:
        return None
    if found.size > MAX_RANK or np.any(found < -1):
        raise ImportModelError(f"{where} has the shape {found[:8].tolist()}; edgeq reads up to {MAX_RANK} axes")
    return tuple(int(v) for v in found)


def _quantization(
    table: Table | None, shape: tuple[int, ...], where: str
) -> tuple[Array | None, npt.NDArray[np.int64], int | None]:
    """Returns scales, zero points and their axis."""
    none = np.zeros(1, np.int64)
    if table is None:
        return None, none, None
    scale, zero = table.vector(2, np.float32), table.vector(3, np.int64)
    if scale is None or scale.size == 0:
        if table.scalar(4, "uint8"):
            raise ImportModelError(f"{where} is quantized in blocks or by a custom scheme, which is not supported")
        return None, none, None
    if zero is None or zero.size == 0:
        zero = np.zeros(scale.size, np.int64)
    if zero.size == 1 and scale.size > 1:
        zero = np.broadcast_to(zero, scale.shape)
    axis = int(table.scalar(6, "int32"))
    if scale.size > 1 and (zero.size != scale.size or not 0 <= axis < len(shape) or shape[axis] != scale.size):
        raise ImportModelError(
            f"{where} of shape {list(shape)} has {scale.size} scales and {zero.size} zero points along axis {axis}; "
            "the file is damaged"
        )
    if not np.all(np.isfinite(scale)) or np.any(scale < 0) or np.any(np.abs(zero) > 1 << 16):
        raise ImportModelError(f"{where} has a scale or zero point that is no sane number; the file is damaged")
    return scale, zero.astype(np.int64), None if scale.size == 1 else axis


def _constant(
    table: Table, buffers: list[Table], data: bytes, element: str, shape: tuple[int, ...], where: str
) -> Array | None:
    number = int(table.scalar(2, "uint32"))
    if number == 0:
        return None
    if number >= len(buffers):
        raise damaged(f"{where} is in buffer {number} of {len(buffers)}")
    raw = _buffer(buffers[number], data, where)
    if raw is None or raw.size == 0:
        return None
    if element not in _NUMPY_TYPES and element != "int4":
        raise ImportModelError(f"{where} is a constant of type {element}, which is not supported")
    if min(shape, default=1) < 0:
        raise damaged(f"{where} is a constant of shape {list(shape)}")
    count = math.prod(shape)
    if element == "int4":
        if raw.size != -(-count // 2):
            raise damaged(f"{where} of shape {list(shape)} has {raw.size} bytes")
        return unpack_int4(raw, count).reshape(shape)
    kind = np.dtype(element).newbyteorder("<")
    if raw.size != count * kind.itemsize:
        raise damaged(f"{where} of shape {list(shape)} needs {count * kind.itemsize} bytes and has {raw.size}")
    value: Array = raw.view(kind).reshape(shape)
    return value


def _buffer(table: Table, data: bytes, where: str) -> npt.NDArray[np.uint8] | None:
    """Returns a buffer's bytes: in the table, or behind it in a file that is too large for one."""
    offset, size = int(table.scalar(1, "uint64")), int(table.scalar(2, "uint64"))
    if offset > 1:
        if offset + size > len(data):
            raise damaged(f"{where} lies at bytes {offset} to {offset + size} of {len(data)}")
        return np.frombuffer(data, np.uint8, size, offset)
    return table.vector(0, np.uint8)
