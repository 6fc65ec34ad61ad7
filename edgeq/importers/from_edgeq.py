"""Reads .edgeq files (docs/format.md); every bound is checked before it is trusted."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgeq.data.preprocessing import CHANNEL_COUNTS, Preprocessing
from edgeq.errors import EdgeqError, FormatError, GraphError
from edgeq.exporters.edgeq_format import (
    ALIGNMENT,
    CHANNEL_ORDERS,
    DTYPE_OF_TYPE,
    END,
    GUARD,
    HEADER,
    INTERPOLATIONS,
    MAGIC,
    MAX_DIMENSION,
    MAX_ELEMENTS,
    MAX_META_BYTES,
    MAX_NODE_FIELDS,
    MAX_NODES,
    MAX_RANK,
    MAX_SECTIONS,
    MAX_STRINGS,
    MAX_TENSORS,
    NODE,
    OPTIONAL_KIND,
    PREPROCESSING,
    REQUIRED_SECTIONS,
    SECTION,
    TENSOR,
    VERSION,
    ElementType,
    Guard,
    ModelInfo,
    Section,
    value_bytes,
)
from edgeq.exporters.edgeq_operators import OPERATORS_BY_CODE, FileOperator, check_arithmetic, check_operands
from edgeq.exporters.xxh64 import xxh64
from edgeq.ir import BATCH, Graph, Node, QuantParams, Tensor, validate
from edgeq.ir.int4 import unpack_int4
from edgeq.ir.tensor import Array
from edgeq.ops import get

__all__ = ["Guard", "ModelInfo", "decode", "load"]

_KNOWN_KINDS = frozenset(int(kind) for kind in Section)


def load(path: str | Path) -> tuple[Graph, ModelInfo]:
    """Reads a .edgeq file.

    Returns:
        The quantized NHWC graph and what else the file holds.

    Raises:
        FormatError: Naming the file and what is wrong with it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return decode(content)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def decode(content: bytes) -> tuple[Graph, ModelInfo]:
    """Reads the bytes of a .edgeq file; constants are read-only views of `content` where the layout allows it.

    Raises:
        FormatError: Naming what is wrong.
    """
    return _Reader(content).decode()


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = memoryview(content)
        self.sections: dict[int, memoryview] = {}
        self.string_ends: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self.string_bytes = memoryview(b"")
        self.data = memoryview(b"")
        self.data_used = 0

    def decode(self) -> tuple[Graph, ModelInfo]:
        self.read_container()
        self.read_strings()
        self.data = self.sections[Section.DATA]
        metadata = self.read_metadata()
        name = metadata.pop("name", "model")
        graph = Graph(name if isinstance(name, str) else "model", layout="nhwc")
        tensors = self.read_tensors()
        for tensor in tensors:
            if tensor.name in graph.tensors:
                raise FormatError(f"two tensors are named {_short(tensor.name)}")
            graph.add_tensor(tensor)
        names = [tensor.name for tensor in tensors]
        self.read_ends(graph, names)
        self.read_nodes(graph, names)
        for tensor in tensors:
            if not tensor.is_constant and tensor.name not in self.written:
                raise FormatError(f"activation {_short(tensor.name)} is computed by no node and is no input")
        try:
            validate(graph)
        except GraphError as error:
            raise FormatError(str(error)) from None
        return graph, ModelInfo(self.read_preprocessing(), self.read_labels(), self.read_guard(), metadata)

    # --- the container ---

    def read_container(self) -> None:
        size = len(self.content)
        if size < HEADER.size:
            raise FormatError(f"is not a .edgeq file: {size} bytes are fewer than its header's {HEADER.size}")
        magic, version, count, declared, digest, reserved = HEADER.unpack_from(self.content)
        if magic != MAGIC:
            hint = " (line ends were changed in transfer: copy it as binary)" if magic[:6] == MAGIC[:6] else ""
            raise FormatError(f"is not a .edgeq file: it starts with {magic.hex(' ')}{hint}")
        if version != VERSION:
            raise FormatError(f"has version {version}, this edgeq reads version {VERSION}: update edgeq")
        if declared != size:
            raise FormatError(f"has {size} bytes where its header says {declared}: it was truncated or added to")
        if any(reserved):
            raise FormatError("has reserved header bytes that are not zero")
        if not 1 <= count <= MAX_SECTIONS:
            raise FormatError(f"has {count} sections, not 1..{MAX_SECTIONS}")
        if xxh64(self.content[HEADER.size :]) != digest:
            raise FormatError("has a wrong content hash: it was corrupted; copy or export it again")
        end = HEADER.size + count * SECTION.size
        if end > size:
            raise FormatError(f"ends inside its table of {count} sections")
        for index in range(count):
            kind, zero, offset, length = SECTION.unpack_from(self.content, HEADER.size + index * SECTION.size)
            where = f"section {index} (kind {kind:#x})"
            if zero:
                raise FormatError(f"{where}: a reserved field is not zero")
            if offset % ALIGNMENT or offset < end or length > size or offset > size - length:
                raise FormatError(f"{where}: bytes {offset} to {offset + length} are misplaced or outside the file")
            if np.any(np.frombuffer(self.content[end:offset], np.uint8)):
                raise FormatError(f"{where}: the gap before it is not zero")
            if kind in self.sections:
                raise FormatError(f"{where}: its kind appears twice")
            if kind not in _KNOWN_KINDS and not kind & OPTIONAL_KIND:
                raise FormatError(f"{where}: its kind is unknown to this edgeq and must not be skipped: update edgeq")
            self.sections[kind] = self.content[offset : offset + length]
            end = offset + length
        if np.any(np.frombuffer(self.content[end:], np.uint8)):
            raise FormatError(f"has {size - end} bytes that are not zero after its last section")
        for required in REQUIRED_SECTIONS:
            if required not in self.sections:
                raise FormatError(f"has no section {required.name}")

    def table(self, section: Section, head: int) -> tuple[memoryview, tuple[int, ...]]:
        """Returns a section and the u32 values at its start."""
        content = self.sections[section]
        if len(content) < 4 * head:
            raise FormatError(f"section {section.name} has {len(content)} bytes, too few for its head")
        return content, struct.unpack_from(f"<{head}I", content)

    def read_strings(self) -> None:
        content, (count,) = self.table(Section.STRINGS, 1)
        if not 1 <= count <= MAX_STRINGS or 4 * (count + 1) > len(content):
            raise FormatError(f"section STRINGS cannot hold {count} strings in {len(content)} bytes")
        self.string_ends = np.frombuffer(content, "<u4", count, 4)
        self.string_bytes = content[4 * (count + 1) :]
        if self.string_ends[0] or np.any(self.string_ends[1:] < self.string_ends[:-1]):
            raise FormatError("section STRINGS: string ends must ascend from 0")
        if self.string_ends[-1] != len(self.string_bytes):
            raise FormatError("section STRINGS: the last string does not end where the section ends")
        try:
            whole = bytes(self.string_bytes).decode()
        except UnicodeDecodeError:
            raise FormatError("section STRINGS is not UTF-8") from None
        if "\0" in whole:
            raise FormatError("section STRINGS holds a zero byte")
        starts = np.frombuffer(self.string_bytes, np.uint8)[self.string_ends[self.string_ends < len(self.string_bytes)]]
        if np.any(starts & 0xC0 == 0x80):
            raise FormatError("section STRINGS is not UTF-8: a string begins inside a character")

    def string(self, index: int, where: str) -> str:
        if index >= len(self.string_ends):
            raise FormatError(f"{where}: there is no string {index}")
        begin = int(self.string_ends[index - 1]) if index else 0
        try:
            return bytes(self.string_bytes[begin : int(self.string_ends[index])]).decode()
        except UnicodeDecodeError:
            raise FormatError(f"{where}: string {index} is not UTF-8") from None

    # --- tensors ---

    def read_tensors(self) -> list[Tensor]:
        content, (count, record) = self.table(Section.TENSORS, 2)
        if record != TENSOR.size:
            raise FormatError(f"section TENSORS has records of {record} bytes, not {TENSOR.size}")
        if count > MAX_TENSORS or len(content) != 8 + count * record:
            raise FormatError(f"section TENSORS cannot hold {count} tensors in {len(content)} bytes")
        return [self.read_tensor(content, index) for index in range(count)]

    def read_tensor(self, content: memoryview, index: int) -> Tensor:
        record = TENSOR.unpack_from(content, 8 + index * TENSOR.size)
        name_index, code, rank, constant, bits, *rest = record
        dimensions = rest[:MAX_RANK]
        axis, zero, scales, zero_field, scale_offset, offset, size, reserved = rest[MAX_RANK:]
        where = f"tensor {index}"
        name = self.string(name_index, where)
        if not name:
            raise FormatError(f"{where}: it has no name")
        where = f"tensor {_short(name)}"

        def wrong(why: str) -> NoReturn:
            raise FormatError(f"{where}: {why}")

        if code not in set(ElementType):
            wrong(f"type {code} does not exist")
        kind = ElementType(code)
        if constant not in (0, 1) or zero_field or any(reserved):
            wrong("a flag or a reserved field has a value it cannot have")
        if rank > MAX_RANK or any(dimensions[rank:]) or (not constant and rank == 0):
            wrong(f"rank {rank} does not fit its dimensions {dimensions}")
        shape = tuple(dimensions[:rank])
        for place, dimension in enumerate(shape):
            free = place == 0 and not constant
            if dimension != BATCH if free else not 1 <= dimension <= MAX_DIMENSION:
                wrong(f"dimension {place} of {list(shape)} is {dimension}")
        elements = math.prod(shape[0 if constant else 1 :])
        if elements > MAX_ELEMENTS:
            wrong(f"shape {list(shape)} has more than {MAX_ELEMENTS} elements")
        if kind == ElementType.INT4 and (not constant or bits != 4):
            wrong("only constants with 4 bits are stored as int4")
        if bits not in {ElementType.INT8: (0, 4, 8), ElementType.INT4: (4,), ElementType.INT32: (0, 32)}.get(
            kind, (0,)
        ):
            wrong(f"{bits} bits do not go with {kind.name.lower()}")
        if (bits == 0) != (scales == 0):
            wrong(f"{bits} bits do not go with {scales} scales")
        quant = None
        if scales:
            quant = self.read_quant(where, shape, bits, axis, zero, scales, scale_offset)
        elif axis != -1 or zero or scale_offset:
            wrong("it is not quantized but has quantization fields")
        data = None
        if constant:
            if size != value_bytes(kind, elements):
                wrong(
                    f"{elements} elements of {kind.name.lower()} take {value_bytes(kind, elements)} bytes, not {size}"
                )
            data = self.read_value(self.region(where, "value", offset, size, ALIGNMENT), kind, shape)
        elif offset or size:
            wrong("it is an activation but has a value")
        return Tensor(name, shape, DTYPE_OF_TYPE[kind], quant, data)

    def region(self, where: str, what: str, offset: int, size: int, alignment: int) -> memoryview:
        """Returns a part of DATA; the parts must follow each other without overlap."""
        if offset % alignment or size > len(self.data) or offset > len(self.data) - size:
            raise FormatError(f"{where}: its {what} at {offset}, {size} bytes, is misaligned or outside section DATA")
        if offset < self.data_used:
            raise FormatError(f"{where}: its {what} at {offset} overlaps what stands before it in section DATA")
        self.data_used = offset + size
        return self.data[offset : offset + size]

    def read_quant(
        self, where: str, shape: tuple[int, ...], bits: int, axis: int, zero: int, scales: int, offset: int
    ) -> QuantParams:
        if axis != -1 and not 0 <= axis < len(shape):
            raise FormatError(f"{where}: quantization axis {axis} is none of its {len(shape)} axes")
        if scales != (1 if axis == -1 else shape[axis]):
            raise FormatError(f"{where}: {scales} scales do not fit shape {list(shape)} and axis {axis}")
        limit = 0 if axis != -1 or bits == 32 else 1 << (bits - 1)
        if not -limit <= zero <= max(limit - 1, 0):
            raise FormatError(f"{where}: zero point {zero} is outside the range of its codes")
        values = np.frombuffer(self.region(where, "scales", offset, 4 * scales, 4), "<f4")
        if not np.all(np.isfinite(values)) or np.any(values <= 0):
            raise FormatError(f"{where}: a scale is not a finite positive number")
        if axis == -1:
            return QuantParams(values[0], np.int32(zero), bits)
        return QuantParams(values.astype(np.float32, copy=False), np.zeros(scales, np.int32), bits, axis)

    def read_value(self, raw: memoryview, kind: ElementType, shape: tuple[int, ...]) -> Array:
        if kind == ElementType.INT4:
            return _unpack_int4(raw, math.prod(shape)).reshape(shape)
        dtype = np.dtype(DTYPE_OF_TYPE[kind])
        value: Array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
        return value

    # --- ends and nodes ---

    def read_ends(self, graph: Graph, names: list[str]) -> None:
        content, (inputs, outputs) = self.table(Section.ENDS, 2)
        if inputs < 1 or outputs < 1 or len(content) != 8 + (inputs + outputs) * END.size:
            raise FormatError(f"section ENDS cannot hold {inputs} inputs and {outputs} outputs in {len(content)} bytes")
        plain: set[str] = set()
        for index in range(inputs + outputs):
            what = f"input {index}" if index < inputs else f"output {index - inputs}"
            tensor_index, layout, reserved = END.unpack_from(content, 8 + index * END.size)
            if tensor_index >= len(names) or any(reserved):
                raise FormatError(f"{what}: tensor {tensor_index} does not exist, or a reserved field is not zero")
            tensor = graph.tensors[names[tensor_index]]
            ends = graph.inputs if index < inputs else graph.outputs
            if tensor.is_constant or tensor.name in ends:
                raise FormatError(f"{what}: tensor {_short(tensor.name)} is a constant or stands twice")
            if index < inputs and (tensor.dtype != "int8" or tensor.quant is None):
                raise FormatError(f"{what}: tensor {_short(tensor.name)} is not a quantized int8 activation")
            if layout > (len(tensor.shape) == 4):
                raise FormatError(f"{what}: source layout {layout} does not go with shape {list(tensor.shape)}")
            ends.append(tensor.name)
            is_plain = len(tensor.shape) == 4 and not layout
            if tensor.name in graph.inputs and ends is graph.outputs and is_plain != (tensor.name in plain):
                raise FormatError(f"{what}: tensor {_short(tensor.name)} is an input of another source layout")
            if is_plain:
                plain.add(tensor.name)
        graph.plain_ends = frozenset(plain)
        self.written = set(graph.inputs)

    def read_nodes(self, graph: Graph, names: list[str]) -> None:
        content, (count, zero) = self.table(Section.NODES, 2)
        if count > MAX_NODES or zero:
            raise FormatError(f"section NODES has {count} nodes, more than {MAX_NODES}, or a reserved field is set")
        taken: set[str] = set()
        position = 8
        for index in range(count):
            where = f"node {index}"
            if position + NODE.size > len(content):
                raise FormatError(f"{where}: section NODES ends inside it")
            code, inputs, outputs, attributes, name_index = NODE.unpack_from(content, position)
            position += NODE.size
            fields = inputs + outputs + attributes
            if fields > MAX_NODE_FIELDS or position + 4 * fields > len(content):
                raise FormatError(f"{where}: its {fields} fields do not fit section NODES")
            values = struct.unpack_from(f"<{fields}i", content, position)
            position += 4 * fields
            name = self.string(name_index, where)
            if not name or name in taken:
                raise FormatError(f"{where}: its name {_short(name)} is empty or another node's")
            taken.add(name)
            operator = OPERATORS_BY_CODE.get(code)
            if operator is None:
                raise FormatError(f"node {_short(name)}: operator {code} is unknown to this edgeq: update edgeq")
            self.add_node(graph, names, operator, name, values[:inputs], values[inputs : inputs + outputs],
                          values[inputs + outputs :])  # fmt: skip
        if position != len(content):
            raise FormatError(f"section NODES has {len(content) - position} bytes after its last node")

    def add_node(
        self, graph: Graph, names: list[str], operator: FileOperator, name: str,
        inputs: tuple[int, ...], outputs: tuple[int, ...], attributes: tuple[int, ...],
    ) -> None:  # fmt: skip
        where = f"node {_short(name)} ({operator.name})"
        if len(outputs) != 1:
            raise FormatError(f"{where}: it has {len(outputs)} outputs, not 1")
        for tensor in (*inputs, *outputs):
            if not -1 <= tensor < len(names) or (tensor == -1 and tensor in outputs):
                raise FormatError(f"{where}: there is no tensor {tensor}")
        operands = tuple("" if tensor == -1 else names[tensor] for tensor in inputs)
        for operand in operands:
            if operand and operand not in self.written and not graph.tensors[operand].is_constant:
                raise FormatError(f"{where}: its input {_short(operand)} is not computed before it")
        result = names[outputs[0]]
        if graph.tensors[result].is_constant or result in self.written:
            raise FormatError(f"{where}: its output {_short(result)} is a constant, an input or computed twice")
        self.written.add(result)
        try:
            check_operands(operator, operands, result, graph)
            node = Node(operator.name, name, operands, (result,))
            node = node.with_(attrs=operator.decode(attributes, node, graph))
            definition = get(operator.name)
            [(shape, _)] = definition.infer(node, graph)
            if shape != graph.tensors[result].shape:
                raise GraphError(f"its output is declared {list(graph.tensors[result].shape)}, computed {list(shape)}")
            if graph.tensors[result].quant is not None:
                definition.check_quant(node, graph)
                check_arithmetic(node, graph)
        except EdgeqError as error:
            raise FormatError(f"{where}: {error}") from None
        graph.nodes.append(node)

    # --- what else the file holds ---

    def read_metadata(self) -> dict[str, Any]:
        content = self.sections.get(Section.META, memoryview(b"{}"))
        if len(content) > MAX_META_BYTES:
            raise FormatError(f"section META has {len(content)} bytes, more than {MAX_META_BYTES}")
        try:
            values = json.loads(bytes(content).decode())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"section META is not JSON: {_short(str(error))}") from None
        if not isinstance(values, dict):
            raise FormatError("section META is not a JSON object")
        return values

    def read_preprocessing(self) -> Preprocessing | None:
        content = self.sections.get(Section.PREPROCESSING)
        if content is None:
            return None
        if len(content) < PREPROCESSING.size:
            raise FormatError("section PREPROCESSING is too short")
        order, resize, height, width, interpolation, count = PREPROCESSING.unpack_from(content)
        if order >= len(CHANNEL_ORDERS) or interpolation >= len(INTERPOLATIONS):
            raise FormatError(
                f"section PREPROCESSING: channel order {order} or interpolation {interpolation} is unknown"
            )
        if count not in (1, CHANNEL_COUNTS[CHANNEL_ORDERS[order]]):
            raise FormatError(f"section PREPROCESSING: {count} values a channel do not fit {CHANNEL_ORDERS[order]}")
        if len(content) != PREPROCESSING.size + 8 * count or (height == 0) != (width == 0):
            raise FormatError("section PREPROCESSING: its size or its crop makes no sense")
        values = tuple(float(v) for v in np.frombuffer(content, "<f4", 2 * count, PREPROCESSING.size))
        try:
            return Preprocessing(
                resize or None, (height, width) if height else None, values[:count], values[count:],
                CHANNEL_ORDERS[order], INTERPOLATIONS[interpolation],
            )  # fmt: skip
        except EdgeqError as error:
            raise FormatError(f"section PREPROCESSING: {error}") from None

    def read_labels(self) -> tuple[str, ...]:
        if Section.LABELS not in self.sections:
            return ()
        content, (count,) = self.table(Section.LABELS, 1)
        if count > MAX_STRINGS or len(content) != 4 * (count + 1):
            raise FormatError(f"section LABELS cannot hold {count} labels in {len(content)} bytes")
        return tuple(self._labels(content, count))

    def _labels(self, content: memoryview, count: int) -> Iterator[str]:
        known: dict[int, str] = {}
        for (index,) in struct.iter_unpack("<I", content[4:]):
            if index not in known:
                known[index] = self.string(index, "section LABELS")
            yield known[index]

    def read_guard(self) -> Guard | None:
        content = self.sections.get(Section.GUARD)
        if content is None:
            return None
        if len(content) != GUARD.size:
            raise FormatError(f"section GUARD has {len(content)} bytes, not {GUARD.size}")
        temperature, margin, reserved = GUARD.unpack(content)
        try:
            if any(reserved):
                raise GraphError("a reserved field is not zero")
            return Guard(temperature, margin)
        except EdgeqError as error:
            raise FormatError(f"section GUARD: {error}") from None


def _unpack_int4(raw: memoryview, elements: int) -> npt.NDArray[np.int8]:
    packed = np.frombuffer(raw, np.uint8)
    if elements % 2 and packed[-1] >> 4:
        raise FormatError("an odd int4 tensor has a last nibble that is not zero")
    return unpack_int4(packed, elements)


def _short(text: str) -> str:
    """A name from a file as it may stand in a message: quoted, without control characters, not long."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
